// How fast this machine can read weights: the limit of every decode step.
//
//   read_loop BYTES THREADS SECONDS PREFETCH_BYTES
//
// Each thread owns one contiguous part of the buffer and is pinned to one core. All threads start a
// pass together; a pass ends when the last one is through. Prints one JSON object: the rates are
// gigabytes (1e9) a second over whole passes. Built by benchmarks/peers/run with -O3 -march=native.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { kLine = 64, kMaxThreads = 256, kMaxPasses = 100000 };

typedef uint64_t Vector __attribute__((vector_size(64)));

typedef struct {
  const char* begin;
  size_t lines;
  int core;  // the core to stay on; -1 leaves the choice to the kernel
  uint64_t sum;
} Part;

static size_t prefetch_bytes;
static _Atomic int go, finished, stop;  // `go` counts passes

static uint64_t ReadPart(const char* at, size_t lines) {
  Vector a = {0}, b = {0};
  for (size_t i = 0; i + 1 < lines; i += 2, at += 2 * kLine) {
    __builtin_prefetch(at + prefetch_bytes, 0, 3);
    __builtin_prefetch(at + prefetch_bytes + kLine, 0, 3);
    a ^= *(const Vector*)at;
    b ^= *(const Vector*)(at + kLine);
  }
  a ^= b;
  return a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
}

static void Pin(int core) {
  if (core < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void* Work(void* argument) {
  Part* part = argument;
  Pin(part->core);
  for (int pass = 1;; ++pass) {
    while (atomic_load(&go) < pass)
      if (atomic_load(&stop)) return NULL;
    part->sum ^= ReadPart(part->begin, part->lines);
    atomic_fetch_add(&finished, 1);
  }
}

static double Now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static int Ascending(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

// Fills `parts` with equal shares of the buffer and the cores this process may use, in order.
static void Divide(Part* parts, int threads, const char* buffer, size_t lines) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  int pin = threads <= CPU_COUNT(&allowed), core = -1;
  for (int i = 0; i < threads; ++i) {
    if (pin) do ++core; while (!CPU_ISSET(core, &allowed));
    size_t first = lines * i / threads, last = lines * (i + 1) / threads;
    parts[i] = (Part){buffer + first * kLine, last - first, core, 0};
  }
}

// Runs passes for `seconds`; returns how many, with the seconds of each in `times`. The calling thread
// reads part 0 itself, so that it takes no core from the others.
static int Measure(double* times, Part* parts, int threads, double seconds) {
  int passes = 0;
  double end = Now() + seconds;
  while (passes < kMaxPasses && (passes < 5 || Now() < end)) {
    atomic_store(&finished, 0);
    double start = Now();
    atomic_fetch_add(&go, 1);
    parts[0].sum ^= ReadPart(parts[0].begin, parts[0].lines);
    while (atomic_load(&finished) < threads - 1) {
    }
    times[passes++] = Now() - start;
  }
  return passes;
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: read_loop BYTES THREADS SECONDS PREFETCH_BYTES\n");
    return 2;
  }
  size_t bytes = strtoull(argv[1], NULL, 10) / (2 * kLine) * (2 * kLine);
  int threads = atoi(argv[2]);
  double seconds = atof(argv[3]);
  prefetch_bytes = strtoull(argv[4], NULL, 10);
  if (bytes == 0 || threads < 1 || threads > kMaxThreads) return 2;

  // Prefetching past the end must stay inside the mapping.
  size_t mapped = bytes + prefetch_bytes + 4096;
  char* buffer = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  double* times = malloc(sizeof(double) * kMaxPasses);
  if (buffer == MAP_FAILED || !times) return 1;
  madvise(buffer, mapped, MADV_HUGEPAGE);
  memset(buffer, 0x5a, mapped);  // untouched pages would all be one page of zeros

  Part parts[kMaxThreads];
  pthread_t handles[kMaxThreads];
  Divide(parts, threads, buffer, bytes / kLine);
  Pin(parts[0].core);
  for (int i = 1; i < threads; ++i) pthread_create(&handles[i], NULL, Work, &parts[i]);
  int passes = Measure(times, parts, threads, seconds);
  atomic_store(&stop, 1);
  uint64_t sum = parts[0].sum;
  for (int i = 1; i < threads; ++i) {
    pthread_join(handles[i], NULL);
    sum ^= parts[i].sum;
  }

  qsort(times, passes, sizeof *times, Ascending);
  double gb = bytes * 1e-9;
  printf("{\"bytes\": %zu, \"threads\": %d, \"passes\": %d, \"checksum\": %llu, "
         "\"gb_per_second\": {\"median\": %.3f, \"min\": %.3f, \"max\": %.3f}}\n",
         bytes, threads, passes, (unsigned long long)sum, gb / times[passes / 2],
         gb / times[passes - 1], gb / times[0]);
  return 0;
}
