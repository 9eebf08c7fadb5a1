// Reading and adding records (runtime/schema/record.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/schema/record.h"

namespace quern {

/// A record in a file's bytes.
struct Record {
  RecordKind kind;
  uint64_t offset;  ///< Of its header in the file.
  std::span<const uint8_t> bytes;
};

/// The records of a file and where the next one goes.
struct Records {
  std::vector<Record> items;
  uint64_t end = 0;
};

/// The records of `file` behind its manifest, which ends at `manifest_end`; their hashes are
/// checked. Errors: kMalformed, kIncompatible (flags), with the byte offset.
Result<Records> ReadRecords(std::span<const uint8_t> file, uint64_t manifest_end);

/// Adds a record to the artifact at `path`, which must be sound. It is written in place: whatever
/// interrupts it leaves an artifact without the record, and readers of the file are not disturbed.
/// Errors: those of Artifact::Load; kFailure when the file cannot be written; kUsage when the
/// record is too large, one too many, or a signature of something else.
Status AppendRecord(const std::string& path, RecordKind kind, std::span<const uint8_t> bytes);

}  // namespace quern
