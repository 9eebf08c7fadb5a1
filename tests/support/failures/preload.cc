// Makes calls of the C library fail in a whole program, which need not know of it:
//
//   LD_PRELOAD=libquern_failures.so QUERN_FAIL=read:3 QUERN_FAIL_COUNTS=FILE quern ...
//
// The third call of the class `read` behind the start of main() fails, and only that one; with
// `read:3+` all from the third on. The classes are kNames. FILE gets the number of calls of each
// class, a u64 a class, as they are made: a first run tells what there is to fail.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

enum Class { kMalloc, kMmap, kRead, kWrite, kClasses };
constexpr const char* kNames[kClasses] = {"malloc", "mmap", "read", "write"};

/// Nothing is counted or fails before main() begins: the dynamic loader has no way to report it.
std::atomic<bool> g_active{false};
std::atomic<uint64_t> g_own_counts[kClasses];
std::atomic<uint64_t>* g_counts = g_own_counts;  // or the pages of FILE
int g_class = -1;
uint64_t g_at = 0;
bool g_onwards = false;

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

/// Counts a call; true when it is to fail.
bool Fails(Class kind) {
  if (!g_active.load(std::memory_order_relaxed)) return false;
  const uint64_t count = g_counts[kind].fetch_add(1, std::memory_order_relaxed) + 1;
  return kind == g_class && (g_onwards ? count >= g_at : count == g_at);
}

template <typename Result>
Result FailWith(int error, Result result) {
  errno = error;
  return result;
}

void ReadEnvironment() {
  if (const char* file = std::getenv("QUERN_FAIL_COUNTS")) {
    const int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) != 0) std::abort();
    void* pages = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (pages == MAP_FAILED) std::abort();
    close(fd);
    g_counts = static_cast<std::atomic<uint64_t>*>(pages);
  }
  const char* what = std::getenv("QUERN_FAIL");
  if (!what) return;
  const char* colon = std::strchr(what, ':');
  for (int kind = 0; colon && kind < kClasses; ++kind) {
    if (std::strncmp(what, kNames[kind], static_cast<size_t>(colon - what)) == 0) g_class = kind;
  }
  if (g_class < 0) std::abort();
  char* end = nullptr;
  g_at = std::strtoull(colon + 1, &end, 10);
  g_onwards = *end == '+';
}

int (*g_main)(int, char**, char**) = nullptr;

int CountedMain(int argc, char** argv, char** environment) {
  ReadEnvironment();
  g_active.store(true);
  const int code = g_main(argc, argv, environment);
  g_active.store(false);
  return code;
}

}  // namespace

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT int __libc_start_main(int (*main)(int, char**, char**), int argc, char** argv,
                             void (*init)(), void (*fini)(), void (*rtld_fini)(), void* stack) {
  using Start =
      int (*)(int (*)(int, char**, char**), int, char**, void (*)(), void (*)(), void (*)(), void*);
  g_main = main;
  return Next<Start>("__libc_start_main")(CountedMain, argc, argv, init, fini, rtld_fini, stack);
}

// The C library's own names of its allocator: dlsym, which Next needs, allocates.
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

EXPORT void* malloc(size_t size) {
  return Fails(kMalloc) ? FailWith<void*>(ENOMEM, nullptr) : __libc_malloc(size);
}
EXPORT void* calloc(size_t count, size_t size) {
  return Fails(kMalloc) ? FailWith<void*>(ENOMEM, nullptr) : __libc_calloc(count, size);
}
EXPORT void* realloc(void* memory, size_t size) {
  return Fails(kMalloc) ? FailWith<void*>(ENOMEM, nullptr) : __libc_realloc(memory, size);
}
EXPORT void* aligned_alloc(size_t alignment, size_t size) {
  return Fails(kMalloc) ? FailWith<void*>(ENOMEM, nullptr) : __libc_memalign(alignment, size);
}
EXPORT int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = Fails(kMalloc) ? nullptr : __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}

EXPORT void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  static const auto next = Next<decltype(&mmap)>("mmap");
  if (Fails(kMmap)) return FailWith<void*>(ENOMEM, MAP_FAILED);
  return next(address, length, protection, flags, fd, offset);
}
EXPORT void* mmap64(void* address, size_t length, int protection, int flags, int fd, off_t offset) {
  return mmap(address, length, protection, flags, fd, offset);
}

EXPORT ssize_t read(int fd, void* bytes, size_t count) {
  static const auto next = Next<decltype(&read)>("read");
  return Fails(kRead) ? FailWith<ssize_t>(EIO, -1) : next(fd, bytes, count);
}
EXPORT ssize_t pread(int fd, void* bytes, size_t count, off_t offset) {
  static const auto next = Next<decltype(&pread)>("pread");
  return Fails(kRead) ? FailWith<ssize_t>(EIO, -1) : next(fd, bytes, count, offset);
}
EXPORT ssize_t pread64(int fd, void* bytes, size_t count, off_t offset) {
  return pread(fd, bytes, count, offset);
}

// Writing: what ends up on the disk, but not what is said on standard output and error.
EXPORT ssize_t write(int fd, const void* bytes, size_t count) {
  static const auto next = Next<decltype(&write)>("write");
  return fd > 2 && Fails(kWrite) ? FailWith<ssize_t>(ENOSPC, -1) : next(fd, bytes, count);
}
EXPORT ssize_t pwrite(int fd, const void* bytes, size_t count, off_t offset) {
  static const auto next = Next<decltype(&pwrite)>("pwrite");
  return Fails(kWrite) ? FailWith<ssize_t>(ENOSPC, -1) : next(fd, bytes, count, offset);
}
EXPORT ssize_t pwrite64(int fd, const void* bytes, size_t count, off_t offset) {
  return pwrite(fd, bytes, count, offset);
}
EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
  static const auto next = Next<decltype(&fallocate)>("fallocate");
  return Fails(kWrite) ? FailWith(ENOSPC, -1) : next(fd, mode, offset, length);
}
EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length) {
  return fallocate(fd, mode, offset, length);
}
EXPORT int ftruncate(int fd, off_t length) {
  static const auto next = Next<decltype(&ftruncate)>("ftruncate");
  return Fails(kWrite) ? FailWith(EIO, -1) : next(fd, length);
}
EXPORT int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }
EXPORT int fsync(int fd) {
  static const auto next = Next<decltype(&fsync)>("fsync");
  return Fails(kWrite) ? FailWith(EIO, -1) : next(fd);
}
EXPORT int rename(const char* from, const char* to) {
  static const auto next = Next<int (*)(const char*, const char*)>("rename");
  return Fails(kWrite) ? FailWith(EIO, -1) : next(from, to);
}

}  // extern "C"
