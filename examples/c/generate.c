/* Completes a text with the C interface.
 *
 *   cc generate.c $(pkg-config --cflags --libs quern) -o generate
 *   ./generate model.quern "The capital of France is"
 */
#include <quern.h>
#include <stdio.h>
#include <string.h>

static int32_t print_text(void *user, const char *text, size_t length, int32_t token) {
  (void)user;
  (void)token;
  fwrite(text, 1, length, stdout);
  fflush(stdout);
  return 0; /* go on */
}

/* Feeds the prompt and streams what follows it. */
static quern_status_code complete(const quern_model *model, quern_sequence *sequence,
                                  const char *prompt, quern_error *error) {
  int32_t *tokens = NULL;
  size_t count = 0;
  quern_status_code code =
      quern_tokenize(model, prompt, strlen(prompt), 0, &tokens, &count, error);
  if (code != QUERN_OK) return code;
  code = quern_sequence_feed(sequence, tokens, count, QUERN_ROLE_PREFILL, NULL, error);
  quern_free(tokens);
  if (code != QUERN_OK) return code;

  quern_sampling sampling = QUERN_SAMPLING_INIT;
  sampling.temperature = 0.7f;
  sampling.top_p = 0.9f;
  sampling.seed = 1;
  code = quern_sequence_set_sampling(sequence, &sampling, error);
  if (code != QUERN_OK) return code;

  quern_generate_options options = QUERN_GENERATE_OPTIONS_INIT;
  options.max_tokens = 64;
  return quern_generate(sequence, &options, print_text, NULL, NULL, error);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.quern PROMPT\n", argv[0]);
    return QUERN_USAGE;
  }
  quern_error error;
  quern_model *model = NULL;
  quern_session *session = NULL;
  quern_sequence *sequence = NULL;
  quern_status_code code = quern_model_load(argv[1], NULL, &model, &error);
  if (code == QUERN_OK) code = quern_session_create(model, NULL, &session, &error);
  if (code == QUERN_OK) code = quern_sequence_create(session, &sequence, &error);
  if (code == QUERN_OK) code = complete(model, sequence, argv[2], &error);
  if (code == QUERN_OK) {
    putchar('\n');
  } else {
    fprintf(stderr, "%s: %s\n", argv[0], error.message);
  }
  quern_sequence_free(sequence);
  quern_session_free(session);
  quern_model_free(model);
  return code;
}
