#include "runtime/tools/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/tools/error.h"

namespace quern::tools {
namespace {

/// `path` with links followed, so that renaming replaces the file and not a link to it.
std::string FollowLinks(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return path;
  std::string result = resolved;
  std::free(resolved);
  return result;
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : path_(path), final_(FollowLinks(path)) {
  struct stat facts = {};
  const bool in_place = stat(final_.c_str(), &facts) == 0 && !S_ISREG(facts.st_mode);
  if (in_place) {
    file_ = open(final_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = final_ + ".tmp" + std::to_string(getpid());
    file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
  if (file_ < 0) Fail("cannot write");
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::Write(const void* bytes, size_t size) {
  const char* next = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t written = write(file_, next, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) Fail("cannot write");
    next += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::Commit() {
  const int closed = close(file_);
  file_ = -1;
  if (closed != 0) Fail("cannot finish");
  if (temporary_.empty()) return;
  if (std::rename(temporary_.c_str(), final_.c_str()) != 0) Fail("cannot rename to");
  temporary_.clear();
}

void AtomicFile::Fail(const char* what) const {
  const int error = errno;
  if (!temporary_.empty()) unlink(temporary_.c_str());
  throw CommandError(QUERN_FAILURE, std::string(what) + " '" + path_ +
                                        "': " + std::strerror(error) + "; choose another place");
}

}  // namespace quern::tools
