/* quern.h: the C interface of the Quern runtime.
 *
 * Objects, from the outside in:
 *
 *   quern_model     an artifact: weights, code, tokenizer. Immutable; sessions may share it, and
 * any thread may use it. Loading one needs no particular CPU. quern_session   a model made ready to
 * run: the code chosen for this machine, threads, working memory, and the pool of pages that holds
 * keys and values. quern_sequence  one line of text in a session: its tokens and its pages. Forking
 * is cheap: pages are shared until they are written.
 *
 * Calls on one session and its sequences must not overlap in time; quern_session_cancel is the only
 * exception. Free sequences before their session, and sessions before their model.
 *
 * Errors. Functions that can fail return a quern_status_code and take, last, a pointer to a
 * quern_error that may be NULL. On failure it gets the code and one line: what was seen, what was
 * wanted, what to do. After a failure outputs are unchanged, unless it is said otherwise.
 *
 * Options. A struct of options begins with its own size, so that it can grow. Initialise it with
 * the macro beside it (QUERN_..._INIT); a zero field means the default.
 *
 * Memory. What is returned through a `char **` or `int32_t **` is freed with quern_free.
 * The library prints nothing, installs no signal handler and ends no process. An artifact is native
 * code: load only files whose origin you trust.
 */
#ifndef QUERN_H_
#define QUERN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QUERN_EXPORT __attribute__((visibility("default")))
#else
#define QUERN_EXPORT
#endif

/* ---- Version ------------------------------------------------------------------------------------
 */

/** Version of this interface. Grows with every incompatible change. */
#define QUERN_API_VERSION 1

/** The QUERN_API_VERSION the library was built with. Compare it with the header's. */
QUERN_EXPORT uint32_t quern_api_version(void);

/** The library's version, "0.1.0". Static. */
QUERN_EXPORT const char* quern_version(void);

/* ---- Errors -------------------------------------------------------------------------------------
 */

/** The command line exits with the same numbers. */
typedef enum quern_status_code {
  QUERN_OK = 0,
  QUERN_FAILURE = 1,       /* the work failed: an unreadable file, a broken device */
  QUERN_USAGE = 2,         /* the call has no meaning: a NULL, an option out of range */
  QUERN_MALFORMED = 3,     /* input breaks its own format */
  QUERN_UNSUPPORTED = 4,   /* well formed, but Quern has no support for it */
  QUERN_INCOMPATIBLE = 5,  /* a sound artifact that this machine or this library cannot run */
  QUERN_OUT_OF_MEMORY = 6, /* memory, or the pages of a session, are used up */
  QUERN_ACCURACY = 7,      /* a numeric contract does not hold */
  QUERN_CANCELLED = 130    /* quern_session_cancel was called */
} quern_status_code;

typedef struct quern_error {
  int32_t code;       /* a quern_status_code */
  char message[1020]; /* one line of UTF-8, ended by a zero; cut at a whole character if too long */
} quern_error;

/** Frees what a function returned through a `char **` or `int32_t **`. NULL is allowed. */
QUERN_EXPORT void quern_free(void* memory);

/* ---- Models -------------------------------------------------------------------------------------
 */

typedef struct quern_model quern_model;

typedef struct quern_model_options {
  size_t size;
  /** Not 0: hash the weights too, which reads all of them. Everything else is always checked. */
  int32_t check_weights;
  /** Not 0: read the file into memory. 0: map it; then the file must not change while it is mapped,
   *  and reading a page that the disk cannot deliver raises SIGBUS. */
  int32_t copy;
  /** Public keys as `quern keygen` writes them, separated by white space: the artifact must be
   * signed by one of them. Weights are hashed too then, and before the signature is known to be
   * sound nothing else of the file is read. NULL: signatures are not asked for. A file that may be
   * changed after it was checked wants `copy` too. */
  const char* trusted_keys;
} quern_model_options;
#define QUERN_MODEL_OPTIONS_INIT {sizeof(quern_model_options), 0, 0, NULL}

/** Opens the artifact at `path`. `options` may be NULL.
 *  Errors: FAILURE (cannot read), MALFORMED, INCOMPATIBLE (another version, no signature by a
 * trusted key), USAGE (an option). */
QUERN_EXPORT quern_status_code quern_model_load(const char* path,
                                                const quern_model_options* options,
                                                quern_model** model, quern_error* error);
QUERN_EXPORT void quern_model_free(quern_model* model);

/** What the artifact holds, as a JSON object: producer, model, targets, segments, kernels, buffers,
 *  bodies, layers, kv, memory, tokenizer, signers, records. docs/artifact.md lists the fields.
 * Owned by the model. */
QUERN_EXPORT const char* quern_model_json(const quern_model* model);

/** Number of tokens, and of floats in a row of logits. */
QUERN_EXPORT size_t quern_model_vocab(const quern_model* model);
/** Most tokens of one sequence. */
QUERN_EXPORT size_t quern_model_context(const quern_model* model);

/** Checks the artifact at `path` as loading it with `options` (may be NULL) does. `json`, if not
 * NULL, gets a report (checks, each with name, ok and detail) even when the artifact is bad; the
 * returned code is that of the first failed check. */
QUERN_EXPORT quern_status_code quern_verify(const char* path, const quern_model_options* options,
                                            char** json, quern_error* error);

/** What is known about an artifact beside what it holds (docs/artifact.md). */
typedef enum quern_record_kind {
  QUERN_RECORD_SIGNATURE = 1, /* 32 bytes of public key, 64 of signature */
  QUERN_RECORD_REFERENCE = 2, /* JSON: what accuracy is measured against */
  QUERN_RECORD_ACCURACY = 3   /* JSON: figures measured on one device */
} quern_record_kind;

/** Record `index` of those of one kind, and its size; NULL where there are not so many. Its hash
 * was checked; nothing else about it was, but of signatures. Owned by the model. */
QUERN_EXPORT const void* quern_model_record(const quern_model* model, quern_record_kind kind,
                                            size_t index, size_t* bytes);

/** Adds a record to the artifact at `path`. That changes no other byte and not the artifact's hash;
 *  models that are loaded from the file may go on. When it fails the artifact is as it was.
 *  Errors: those of quern_model_load, FAILURE (cannot write), USAGE (too large, or a signature that
 * is none of this artifact). */
QUERN_EXPORT quern_status_code quern_record_add(const char* path, quern_record_kind kind,
                                                const void* data, size_t bytes, quern_error* error);

/** This machine, as JSON: version, cpu, cpus, features, memory_bytes, gpus (and gpu_detail: why
 *  there are none), and checks as quern_verify's. Which targets of an artifact run here stands in
 * quern_model_json. */
QUERN_EXPORT quern_status_code quern_doctor(char** json, quern_error* error);

/* ---- Text ---------------------------------------------------------------------------------------
 */

/** Leave out the tokens around the text that the model asks for (beginning, end). */
#define QUERN_TOKENIZE_PLAIN 1u
/** Read control tokens written in the text, such as <|im_end|>, as such. Not for text from people.
 */
#define QUERN_TOKENIZE_CONTROL 2u

/** Tokens of `length` bytes of UTF-8. `flags`: QUERN_TOKENIZE_*. */
QUERN_EXPORT quern_status_code quern_tokenize(const quern_model* model, const char* text,
                                              size_t length, uint32_t flags, int32_t** tokens,
                                              size_t* count, quern_error* error);

/** Leave control tokens out. */
#define QUERN_DETOKENIZE_SKIP_CONTROL 1u

/** The bytes of `count` tokens; they need not be whole UTF-8 characters. A zero is put behind them
 *  that `length` (may be NULL) does not count. */
QUERN_EXPORT quern_status_code quern_detokenize(const quern_model* model, const int32_t* tokens,
                                                size_t count, uint32_t flags, char** text,
                                                size_t* length, quern_error* error);

/** 1 if `token` ends an answer, otherwise 0. */
QUERN_EXPORT int32_t quern_token_is_end(const quern_model* model, int32_t token);

/** The tokens of a conversation by the model's chat template. `messages_json`: an array of {"role":
 *  ..., "content": ...}; the other fields go to the template as they are. `add_generation_prompt`
 *  not 0: end with the beginning of an answer. Control tokens come from the template alone: one
 * that is written inside a message is plain letters. Errors: USAGE (no JSON array, or the template
 * refuses), MALFORMED (the template is broken), UNSUPPORTED (the model has no template). */
QUERN_EXPORT quern_status_code quern_chat_tokenize(const quern_model* model,
                                                   const char* messages_json,
                                                   int32_t add_generation_prompt, int32_t** tokens,
                                                   size_t* count, quern_error* error);

/** The text of that, for people to read: tokenizing it would take control tokens out of messages.
 */
QUERN_EXPORT quern_status_code quern_chat_render(const quern_model* model,
                                                 const char* messages_json,
                                                 int32_t add_generation_prompt, char** text,
                                                 quern_error* error);

/* ---- Sessions -----------------------------------------------------------------------------------
 */

typedef struct quern_session quern_session;

typedef void (*quern_progress_callback)(void* user, uint64_t done, uint64_t total);

typedef struct quern_session_options {
  size_t size;
  /** Threads, the caller's included. 0: as many as this process may use. More than the artifact has
   *  shares are not used. Results do not depend on it. */
  uint32_t threads;
  /** Not 0: bind threads to CPUs. */
  int32_t pin_threads;
  /** A target of the artifact, such as "avx2". NULL: the best one that the device can run. */
  const char* isa;
  /** Most tokens of one sequence. 0: what the model allows. */
  uint64_t context;
  /** Slots of keys and values of all sequences together, rounded up to pages. 0: `context`. */
  uint64_t kv_tokens;
  /** Most rows of one step. Longer prompts are cut; results do not depend on it. 0: 512. */
  uint32_t max_rows;
  /** What executes the model: "cpu", "cuda" or "cuda:N" (a GPU through NVIDIA's driver),
   *  "ptx-emulator" or "ptx-emulator:sm_80" (a GPU's code on the CPU, slowly). NULL: "cpu". */
  const char* device;
  /** Told, as weights are copied to a GPU, how many bytes are there and how many there will be.
   * NULL: nobody is told. */
  quern_progress_callback progress;
  void* progress_user;
} quern_session_options;
#define QUERN_SESSION_OPTIONS_INIT \
  {sizeof(quern_session_options), 0, 0, NULL, 0, 0, 0, NULL, NULL, NULL}

/** `options` may be NULL. Errors: INCOMPATIBLE (no target of the artifact runs on the device, with
 *  what is missing; no driver, or one that is too old), OUT_OF_MEMORY (with the bytes needed),
 * USAGE.
 */
QUERN_EXPORT quern_status_code quern_session_create(quern_model* model,
                                                    const quern_session_options* options,
                                                    quern_session** session, quern_error* error);
QUERN_EXPORT void quern_session_free(quern_session* session);

/** What was chosen, as a JSON object: device, target, threads, context, max_rows, pages, bytes.
 *  Owned by the session. */
QUERN_EXPORT const char* quern_session_json(const quern_session* session);

/** Makes the call in progress end soon with QUERN_CANCELLED; with none in progress, the next one.
 *  Any thread and a signal handler may call it. */
QUERN_EXPORT void quern_session_cancel(quern_session* session);

/** Not 0: measure the time of every kernel from now on, from zero. */
QUERN_EXPORT void quern_session_set_profiling(quern_session* session, int32_t enabled);
/** {"steps", "seconds", "joins", "join_seconds", "kernels": [{"name", "role", "calls", "seconds"}],
 *  "last_step"}: times as the calling thread saw them, or of the kernels alone on a GPU, since
 *  profiling was enabled. `last_step` (null before one) is {"role", "rows", "logit_rows",
 * "kernels":
 *  [{"name", "dispatches", "bytes", "flops"}], "threads": [[{"kernel", "layer", "begin_ns",
 *  "end_ns"}]]}: what its kernels moved and computed over all shares (docs/artifact.md, kernels),
 * and every dispatch and join (kernel null) of each thread, layer -1 being the prologue and the
 * number of layers the epilogue; no threads on a GPU. */
QUERN_EXPORT quern_status_code quern_session_profile(quern_session* session, char** json,
                                                     quern_error* error);

/* ---- Sequences ----------------------------------------------------------------------------------
 */

typedef struct quern_sequence quern_sequence;

/** Which numerics a token uses. It is the token's role that decides, never the batch. */
typedef enum quern_role {
  QUERN_ROLE_DECODE = 0, /* generated tokens */
  QUERN_ROLE_PREFILL = 1 /* prompt tokens */
} quern_role;

QUERN_EXPORT quern_status_code quern_sequence_create(quern_session* session,
                                                     quern_sequence** sequence, quern_error* error);
QUERN_EXPORT void quern_sequence_free(quern_sequence* sequence);

/** A second sequence with the same tokens, logits and sampler. Pages are shared until written. */
QUERN_EXPORT quern_status_code quern_sequence_fork(const quern_sequence* sequence,
                                                   quern_sequence** fork, quern_error* error);

/** Tokens so far. */
QUERN_EXPORT size_t quern_sequence_length(const quern_sequence* sequence);
/** The tokens; valid until the sequence changes. */
QUERN_EXPORT const int32_t* quern_sequence_tokens(const quern_sequence* sequence);

/** Forgets all tokens but the first `length`, and the logits. Random numbers start anew. */
QUERN_EXPORT quern_status_code quern_sequence_truncate(quern_sequence* sequence, size_t length,
                                                       quern_error* error);

/** Appends `count` tokens. Afterwards quern_sequence_logits gives the logits behind the last one.
 *  `all_logits`, if not NULL, gets those behind every token: (count, vocab) floats.
 *  On failure or cancellation the tokens of the steps that were done stay.
 *  Errors: USAGE (a token out of range, or more than the context), OUT_OF_MEMORY (pages). */
QUERN_EXPORT quern_status_code quern_sequence_feed(quern_sequence* sequence, const int32_t* tokens,
                                                   size_t count, quern_role role, float* all_logits,
                                                   quern_error* error);

/** Appends tokens[i] to sequences[i], for `count` different sequences of one session, in as few
 * steps as possible, as generated tokens. On failure a sequence has its token or is unchanged. */
QUERN_EXPORT quern_status_code quern_decode(quern_session* session,
                                            quern_sequence* const* sequences, const int32_t* tokens,
                                            size_t count, quern_error* error);

/** The logits behind the last token: (vocab) floats, valid until the sequence changes. NULL while
 * the sequence is empty or was just truncated. */
QUERN_EXPORT const float* quern_sequence_logits(const quern_sequence* sequence);

/* ---- Sampling and generating --------------------------------------------------------------------
 */

/** Applied in the order: penalty, top_k, top_p, min_p, temperature. */
typedef struct quern_sampling {
  size_t size;
  float temperature;     /* 0: the best token */
  float repeat_penalty;  /* 0 or 1: none */
  int32_t repeat_last_n; /* tokens that the penalty looks back at; 0: 64 */
  int32_t top_k;         /* 0: all */
  float top_p;           /* 0 or 1: all */
  float min_p;           /* 0: all */
  uint64_t seed;
} quern_sampling;
#define QUERN_SAMPLING_INIT {sizeof(quern_sampling), 0.0f, 1.0f, 64, 0, 1.0f, 0.0f, 0}

/** Sets how the sequence's tokens are chosen, and restarts its random numbers. The tokens it has
 *  count for the penalty. A new sequence takes the best token. */
QUERN_EXPORT quern_status_code quern_sequence_set_sampling(quern_sequence* sequence,
                                                           const quern_sampling* sampling,
                                                           quern_error* error);

/** Chooses the next token from the sequence's logits; does not append it. */
QUERN_EXPORT quern_status_code quern_sequence_sample(quern_sequence* sequence, int32_t* token,
                                                     quern_error* error);

/** Gets text as it comes: `length` bytes of whole UTF-8 characters, no zero behind them. `token` is
 *  the token that completed it, -1 for what was held back at the end. `length` may be 0: a token
 * was made whose text is held back. Return not 0 to stop. */
typedef int32_t (*quern_text_callback)(void* user, const char* text, size_t length, int32_t token);

typedef enum quern_finish {
  QUERN_FINISH_LENGTH = 0,  /* max_tokens were generated */
  QUERN_FINISH_END = 1,     /* the model ended its answer */
  QUERN_FINISH_STOP = 2,    /* a stop string was seen */
  QUERN_FINISH_CALLER = 3,  /* the callback asked for it */
  QUERN_FINISH_CONTEXT = 4, /* the context is full */
  QUERN_FINISH_CANCEL = 5   /* quern_session_cancel */
} quern_finish;

typedef struct quern_generate_options {
  size_t size;
  /** Tokens to generate at most. 0: until something else ends it. */
  uint64_t max_tokens;
  /** Strings that end the text, which stops before them. */
  const char* const* stop;
  size_t stop_count;
  /** Not 0: an end token is text like any other. */
  int32_t ignore_end;
  /** Not 0: show control tokens in the text. */
  int32_t show_control;
} quern_generate_options;
#define QUERN_GENERATE_OPTIONS_INIT {sizeof(quern_generate_options), 0, NULL, 0, 0, 0}

typedef struct quern_generate_result {
  quern_finish finish;
  /** Tokens chosen, an end token included. All but the last are surely part of the sequence now. */
  uint64_t tokens;
} quern_generate_result;

/** Samples and decodes until something ends it. The sequence must have logits (feed it first).
 *  `options`, `callback` and `result` may be NULL. A cancelled call returns QUERN_CANCELLED and
 * fills `result`. */
QUERN_EXPORT quern_status_code quern_generate(quern_sequence* sequence,
                                              const quern_generate_options* options,
                                              quern_text_callback callback, void* user,
                                              quern_generate_result* result, quern_error* error);

/* ---- GPU code on the CPU ------------------------------------------------------------------------
 */

/** An argument of a kernel. */
typedef struct quern_emulate_argument {
  /** The bytes of a value, or the contents of a buffer, which are changed in place. */
  void* data;
  size_t bytes;
  /** Not 0: the argument is the address of a copy of `data` in the emulated device's memory, whose
   *  contents come back when the kernel ends, also by a failure. */
  int32_t is_buffer;
} quern_emulate_argument;

typedef struct quern_emulate_options {
  size_t size;
  /** Which kernel. NULL: the only one. */
  const char* kernel;
  /** Blocks of the grid, threads of a block, blocks of a cluster; x, y, z. 0 counts as 1. */
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t cluster[3];
  /** Dynamic shared memory of a block. */
  uint32_t shared_bytes;
  /** Blocks executed at the same time. 0: one, so that atomics on global memory have one order. */
  uint32_t threads;
  /** 0: warps in turn, asynchronous operations as late as possible. Others: a random schedule. */
  uint64_t seed;
  /** Warp instructions of a block after which it is ended. 0: 2^34. */
  uint64_t max_steps;
  /** Not 0: do not look for races and missing fences. */
  int32_t ignore_races;
  /** Not 0: count the executions of every instruction. */
  int32_t coverage;
} quern_emulate_options;
#define QUERN_EMULATE_OPTIONS_INIT \
  {sizeof(quern_emulate_options), NULL, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, 0, 0, 0, 0, 0, 0}

/** Executes a kernel of `length` bytes of PTX text on the CPU, more strictly than a GPU: bounds and
 *  alignment of every access, deadlocks, races on shared memory, missing waits and fences. The text
 *  need not be trusted. `report` gets JSON; docs/commands.md lists the fields.
 *  Errors: MALFORMED (not PTX), UNSUPPORTED (an instruction the emulator does not have), USAGE
 *  (arguments or sizes that do not fit the kernel), FAILURE (what the kernel did wrong), all with
 *  the line of the text where there is one. */
QUERN_EXPORT quern_status_code quern_emulate(const char* ptx, size_t length,
                                             const quern_emulate_options* options,
                                             const quern_emulate_argument* arguments, size_t count,
                                             char** report, quern_error* error);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* QUERN_H_ */
