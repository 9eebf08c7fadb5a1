#include "runtime/loader/records.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/loader/artifact.h"
#include "runtime/loader/hash.h"
#include "runtime/loader/signature.h"

namespace quern {
namespace {

std::string Name(size_t index, uint64_t offset) {
  return "record " + std::to_string(index) + " (byte " + std::to_string(offset) + ")";
}

Status Bad(size_t index, uint64_t offset, const std::string& what) {
  return Malformed(Name(index, offset) + " " + what +
                   "; copy the artifact again or compile it again");
}

/// Reads the record at `offset` and moves `offset` behind it. False: there is none.
Result<bool> ReadRecord(std::span<const uint8_t> file, uint64_t& offset, Records& records) {
  const size_t index = records.items.size();
  const uint64_t begin = offset;
  const std::span<const uint8_t> rest = file.subspan(std::min<uint64_t>(begin, file.size()));
  const auto start = rest.first(std::min(rest.size(), sizeof(RecordHeader)));
  if (std::all_of(start.begin(), start.end(), [](uint8_t byte) { return byte == 0; })) return false;
  if (start.size() < sizeof(RecordHeader)) {
    return Bad(index, begin, "has " + std::to_string(start.size()) + " bytes of its header's 64");
  }
  RecordHeader header;
  std::memcpy(&header, start.data(), sizeof(header));
  if (std::memcmp(header.magic, kRecordMagic, sizeof(kRecordMagic)) != 0) {
    return Bad(index, begin, "does not begin as a record");
  }
  if (header.flags != 0) {
    return Incompatible(Name(index, begin) + " has flags " + std::to_string(header.flags) +
                        ", this runtime knows none; use a newer runtime");
  }
  const uint64_t room = std::min<uint64_t>(rest.size() - sizeof(header), kMaxRecordBytes);
  if (header.size > room || index >= kMaxRecords) {
    return Bad(index, begin,
               "has " + std::to_string(header.size) + " bytes, wanted up to " +
                   std::to_string(room) + " in one of " + std::to_string(kMaxRecords) + " records");
  }
  const auto bytes = rest.subspan(sizeof(header), header.size);
  const Digest digest = HashBytes(bytes);
  if (std::memcmp(digest.data(), header.hash, kHashBytes) != 0) {
    return Bad(index, begin,
               "has the hash " + DigestText(digest) + ", wanted " + DigestText(header.hash));
  }
  records.items.push_back({header.kind, begin, bytes});
  offset = RecordOffset(begin + sizeof(header) + header.size);
  return true;
}

/// A file that is open for adding to it, locked against others who do.
class LockedFile {
 public:
  explicit LockedFile(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;
  ~LockedFile() {
    if (fd_ >= 0) close(fd_);
  }

  Status Lock() {
    if (fd_ < 0 || flock(fd_, LOCK_EX) != 0) return Error();
    return {};
  }
  Status Write(std::span<const uint8_t> bytes, uint64_t offset) {
    while (!bytes.empty()) {
      const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return Error();
      bytes = bytes.subspan(static_cast<size_t>(written));
      offset += static_cast<uint64_t>(written);
    }
    return fsync(fd_) == 0 ? Status() : Error();
  }
  /// Cuts the file at `size`, or lengthens it with zeros.
  Status Resize(uint64_t size) {
    return ftruncate(fd_, static_cast<off_t>(size)) == 0 ? Status() : Error();
  }

 private:
  Status Error() const {
    return Failure("cannot add a record to " + path_ + ": " + std::strerror(errno) +
                   "; make the file writable and the disk roomy");
  }

  const std::string path_;
  const int fd_;  // last, so that nothing fails once it is open
};

Status Write(LockedFile& file, RecordKind kind, std::span<const uint8_t> bytes, uint64_t offset) {
  RecordHeader header{};
  std::memcpy(header.magic, kRecordMagic, sizeof(kRecordMagic));
  header.kind = kind;
  header.size = bytes.size();
  const Digest digest = HashBytes(bytes);
  std::memcpy(header.hash, digest.data(), digest.size());
  // What an interrupted call left behind goes; the header comes last, when all else is on disk.
  QUERN_RETURN_IF_ERROR(file.Resize(offset));
  QUERN_RETURN_IF_ERROR(file.Write(bytes, offset + sizeof(header)));
  return file.Write({reinterpret_cast<const uint8_t*>(&header), sizeof(header)}, offset);
}

}  // namespace

Result<Records> ReadRecords(std::span<const uint8_t> file, uint64_t manifest_end) {
  Records records;
  records.end = RecordOffset(manifest_end);
  while (true) {
    QUERN_ASSIGN_OR_RETURN(const bool found, ReadRecord(file, records.end, records));
    if (!found) return records;
  }
}

Status AppendRecord(const std::string& path, RecordKind kind, std::span<const uint8_t> bytes) {
  LockedFile file(path);
  QUERN_RETURN_IF_ERROR(file.Lock());
  QUERN_ASSIGN_OR_RETURN(const auto artifact, Artifact::Load(path));
  if (bytes.size() > kMaxRecordBytes || artifact->records().size() >= kMaxRecords) {
    return UsageError("a record of " + std::to_string(bytes.size()) +
                      " bytes does not fit: an artifact has up to " + std::to_string(kMaxRecords) +
                      " of up to " + std::to_string(kMaxRecordBytes) + " bytes");
  }
  if (kind == RecordKind::kSignature && !ReadSignature(artifact->header(), bytes)) {
    return UsageError("the signature is not one of this artifact; sign its header");
  }
  const uint64_t end = artifact->records_end();
  const Status written = Write(file, kind, bytes, end);
  // Nothing half-written is left; that this fails too matters no more.
  if (!written.ok()) (void)file.Resize(end);
  return written;
}

}  // namespace quern
