#include "codegen/artifact/OutputFile.h"

#include "llvm/Support/Path.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <vector>

using namespace quern;
namespace fs = llvm::sys::fs;

/// Bytes of one write, at a multiple of so many: a huge page of x86-64.
static constexpr size_t kPieceBytes = size_t{2} << 20;

/// The folder that holds `path`.
static std::string folderOf(llvm::StringRef path) {
  llvm::StringRef parent = llvm::sys::path::parent_path(path);
  return parent.empty() ? "." : parent.str();
}

/// Makes a rename in `folder` durable. A folder that cannot be synced (some
/// network file systems) still holds a whole file, so that is no error.
static void syncFolder(const std::string &folder) {
  int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return;
  ::fsync(fd);
  ::close(fd);
}

namespace {
/// Holds signals back for its lifetime. LLVM removes a temporary file on a
/// signal only once it has registered the file, which is after making it.
class SignalsHeld {
public:
  SignalsHeld() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
  }
  ~SignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); }
  SignalsHeld(const SignalsHeld &) = delete;
  SignalsHeld &operator=(const SignalsHeld &) = delete;

private:
  sigset_t before;
};
} // namespace

llvm::Expected<OutputFile> OutputFile::create(const std::string &path) {
  fs::file_status status;
  // A rename would replace a device or a pipe by a file.
  if (!fs::status(path, status) && status.type() != fs::file_type::regular_file)
    return compileError(ExitCode::Failure,
                        "cannot write " + path + ": it is " +
                            (status.type() == fs::file_type::directory_file
                                 ? "a directory"
                                 : "no regular file") +
                            "; give the path of a file");
  llvm::Expected<fs::TempFile> file = [&] {
    SignalsHeld held;
    return fs::TempFile::create(path + ".%%%%%%%%.tmp");
  }();
  if (!file) {
    std::error_code error = llvm::errorToErrorCode(file.takeError());
    return compileError(ExitCode::Failure,
                        "cannot write " + path + ": " + error.message() +
                            "; give a path in a folder that exists and can be "
                            "written");
  }
  return OutputFile(path, std::move(*file));
}

OutputFile::~OutputFile() { llvm::consumeError(file.discard()); }

llvm::Error OutputFile::failed(const char *action, int error) const {
  const char *remedy = error == ENOSPC || error == EDQUOT
                           ? "; free disk space or write to another file system"
                           : "";
  return compileError(ExitCode::Failure, llvm::Twine("cannot ") + action + " " +
                                             path + ": " +
                                             std::strerror(error) + remedy);
}

llvm::Error OutputFile::reserve(uint64_t bytes) {
  if (::fallocate(file.FD, 0, 0, static_cast<off_t>(bytes)) == 0 ||
      errno == EOPNOTSUPP || errno == ENOSYS)
    return llvm::Error::success();
  return failed("reserve space for", errno);
}

llvm::Error OutputFile::append(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    size_t room = kPieceBytes - position % kPieceBytes;
    std::span<const uint8_t> part = bytes.first(std::min(room, bytes.size()));
    bytes = bytes.subspan(part.size());
    tail.insert(tail.end(), part.begin(), part.end());
    position += part.size();
    if (position % kPieceBytes == 0)
      if (llvm::Error error = flush())
        return error;
  }
  return llvm::Error::success();
}

llvm::Error OutputFile::flush() {
  llvm::Error error = write(position - tail.size(), tail);
  tail.clear();
  return error;
}

llvm::Error OutputFile::align(uint64_t alignment) {
  const std::vector<uint8_t> zeros((alignment - position % alignment) %
                                   alignment);
  return append(zeros);
}

llvm::Error OutputFile::overwrite(uint64_t offset,
                                  std::span<const uint8_t> bytes) {
  if (llvm::Error error = flush())
    return error;
  return write(offset, bytes);
}

llvm::Error OutputFile::write(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::pwrite(file.FD, bytes.data(), bytes.size(),
                               static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return failed("write", written < 0 ? errno : EIO);
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return llvm::Error::success();
}

llvm::Error OutputFile::commit() {
  if (llvm::Error error = flush())
    return error;
  if (::ftruncate(file.FD, static_cast<off_t>(position)) != 0)
    return failed("write", errno);
  if (::fsync(file.FD) != 0)
    return failed("write", errno);
  // Not keep(path): where a rename fails it copies, which can leave a torn file
  // and leaves the temporary one.
  if (::rename(file.TmpName.c_str(), path.c_str()) != 0)
    return failed("write", errno);
  if (std::error_code error = llvm::errorToErrorCode(file.keep()))
    return failed("write", error.value());
  syncFolder(folderOf(path));
  return llvm::Error::success();
}

llvm::Error quern::writeFile(const std::string &path,
                             llvm::StringRef contents) {
  llvm::Expected<OutputFile> file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  if (llvm::Error error =
          file->append({reinterpret_cast<const uint8_t *>(contents.data()),
                        contents.size()}))
    return error;
  return file->commit();
}
