#include "codegen/artifact/Signature.h"

#include "codegen/artifact/Hash.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MemoryBuffer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sodium.h>
#include <unistd.h>

using namespace quern;

SigningKey::SigningKey(const Seed &seed) {
  crypto_sign_seed_keypair(publicKey.data(), secretKey.data(), seed.data());
}

SigningKey::SigningKey(SigningKey &&other)
    : publicKey(other.publicKey), secretKey(other.secretKey) {
  sodium_memzero(other.secretKey.data(), other.secretKey.size());
}

SigningKey::~SigningKey() {
  sodium_memzero(secretKey.data(), secretKey.size());
}

llvm::Expected<SigningKey> SigningKey::read(const std::string &path) {
  // Bounded: a key file is small whatever lies at the path.
  auto buffer = llvm::MemoryBuffer::getFileSlice(path, 4096, 0);
  if (!buffer)
    return compileError(ExitCode::Failure, "cannot read " + path + ": " +
                                               buffer.getError().message() +
                                               "; name a key that quern "
                                               "keygen made");
  llvm::StringRef text = (*buffer)->getBuffer();
  text = text.take_until([](char c) { return c == '\0'; }).trim();
  Seed seed;
  auto wipe = llvm::scope_exit(
      [&] { sodium_memzero(seed.data(), seed.size()); });
  size_t bytes = 0;
  if (!text.consume_front(kSecretKeyPrefix) || text.size() != 2 * seed.size() ||
      sodium_hex2bin(seed.data(), seed.size(), text.data(), text.size(),
                     nullptr, &bytes, nullptr) != 0 ||
      bytes != seed.size())
    return compileError(ExitCode::Malformed,
                        path + " holds no secret key, wanted " +
                            kSecretKeyPrefix +
                            " and 64 hexadecimal digits; name a .key file "
                            "that quern keygen made");
  return SigningKey(seed);
}

SigningKey SigningKey::generate() {
  Seed seed;
  randombytes_buf(seed.data(), seed.size());
  SigningKey key(seed);
  sodium_memzero(seed.data(), seed.size());
  return key;
}

std::string SigningKey::secretText() const {
  return kSecretKeyPrefix +
         llvm::toHex(llvm::ArrayRef(secretKey).take_front(sizeof(Seed)),
                     /*LowerCase=*/true) +
         "\n";
}

std::string SigningKey::publicText() const {
  return kPublicKeyPrefix + llvm::toHex(publicKey, /*LowerCase=*/true) + "\n";
}

SignatureRecord SigningKey::sign(const FileHeader &header) const {
  constexpr size_t context = sizeof(kSignatureContext) - 1;
  std::array<uint8_t, context + sizeof(FileHeader)> message;
  std::memcpy(message.data(), kSignatureContext, context);
  std::memcpy(message.data() + context, &header, sizeof(header));
  SignatureRecord record;
  std::memcpy(record.public_key, publicKey.data(), publicKey.size());
  crypto_sign_detached(record.signature, nullptr, message.data(),
                       message.size(), secretKey.data());
  return record;
}

llvm::Error quern::appendSignature(OutputFile &file, const FileHeader &header,
                                   const SigningKey &key) {
  const SignatureRecord signature = key.sign(header);
  const std::span<const uint8_t> bytes(
      reinterpret_cast<const uint8_t *>(&signature), sizeof(signature));
  RecordHeader record{};
  std::memcpy(record.magic, kRecordMagic, sizeof(kRecordMagic));
  record.kind = RecordKind::kSignature;
  record.size = bytes.size();
  const Digest digest = hashBytes(bytes);
  std::memcpy(record.hash, digest.data(), digest.size());
  if (llvm::Error error = file.align(kRecordAlignment))
    return error;
  if (llvm::Error error = file.append(
          {reinterpret_cast<const uint8_t *>(&record), sizeof(record)}))
    return error;
  return file.append(bytes);
}

/// Writes a file that is not there yet.
static llvm::Error writeNewFile(const std::string &path, mode_t mode,
                                llvm::StringRef text) {
  auto failed = [&] {
    return compileError(ExitCode::Failure, "cannot write " + path + ": " +
                                               std::strerror(errno) +
                                               "; choose another name");
  };
  const int file =
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0)
    return failed();
  const bool written =
      ::write(file, text.data(), text.size()) == ssize_t(text.size()) &&
      ::fsync(file) == 0;
  llvm::Error error = written ? llvm::Error::success() : failed();
  ::close(file);
  if (error)
    ::unlink(path.c_str());
  return error;
}

llvm::Error quern::writeNewKey(const std::string &name) {
  if (sodium_init() < 0)
    return compileError(ExitCode::Failure,
                        "the system gives no random numbers; try again later");
  const SigningKey key = SigningKey::generate();
  if (llvm::Error error =
          writeNewFile(name + ".key", 0600, key.secretText()))
    return error;
  llvm::Error error = writeNewFile(name + ".pub", 0666, key.publicText());
  if (error)
    ::unlink((name + ".key").c_str());
  return error;
}
