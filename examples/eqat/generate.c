#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "tool.h"

typedef struct text {
    tool *t;
    eqat_model *model;
    const eqat_tokenizer *tokenizer;
    eqat_generation *generation;
    eqat_choose_options choice;
    int32_t *ids; /* of the prompt and of what follows */
    size_t n_prompt, n, most;
    size_t shown; /* bytes that are printed */
    double prompt_seconds, seconds;
} text;

/* Without a character at the end that further tokens complete. */
static size_t whole_characters(const char *bytes, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)bytes[n - back];
        if ((c & 0xC0) == 0x80) continue;
        size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        return length > back ? n - back : n;
    }
    return n;
}

static eqat_status show(text *x, bool end)
{
    const char *bytes;
    size_t n;
    eqat_status st =
        eqat_tokenizer_decode(x->tokenizer, x->ids, x->n, EQAT_TOKENIZE_SKIP_SPECIAL, &bytes, &n);
    if (st != EQAT_OK || x->t->json) return st;
    if (!end) n = whole_characters(bytes, n);
    if (n > x->shown) fwrite(bytes + x->shown, 1, n - x->shown, stdout);
    if (n > x->shown) x->shown = n;
    if (end) putchar('\n');
    fflush(stdout);
    return EQAT_OK;
}

/* A token behind the last `time` ones. */
static eqat_status next(text *x, size_t time, int32_t *id)
{
    eqat_tensor *logits;
    eqat_status st =
        eqat_generation_feed(x->generation, x->ids + x->n - time, (int64_t)time, 1, &logits);
    if (st != EQAT_OK) return st;
    st = eqat_generation_choose(x->generation, logits, &x->choice, id);
    eqat_tensor_free(logits);
    return st;
}

static eqat_status take_prompt(text *x, const char *prompt, size_t length, int64_t positions)
{
    const int32_t *ids;
    eqat_status st = eqat_tokenizer_encode(x->tokenizer, prompt, length,
                                           EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL,
                                           &ids, &x->n_prompt);
    if (st != EQAT_OK) return st;
    if (x->n_prompt == 0)
        return tool_fail(x->t, EQAT_INVALID_ARGUMENT, "--prompt: found no token, expected a text");
    if ((int64_t)x->n_prompt > positions)
        return tool_fail(x->t, EQAT_INVALID_ARGUMENT,
                         "--prompt: found %zu tokens, expected at most the model's %lld positions",
                         x->n_prompt, (long long)positions);
    int64_t room = positions - (int64_t)x->n_prompt + 1; /* the last one is not fed */
    if ((int64_t)x->most > room) {
        tool_warn(x->t, "--tokens: found %zu behind a prompt of %zu, the model has %lld positions",
                  x->most, x->n_prompt, (long long)positions);
        x->most = (size_t)room;
    }
    x->ids = malloc((x->n_prompt + x->most) * sizeof *x->ids);
    if (!x->ids) return tool_fail(x->t, EQAT_OUT_OF_MEMORY, "out of memory: tokens");
    memcpy(x->ids, ids, x->n_prompt * sizeof *ids);
    x->n = x->n_prompt;
    return EQAT_OK;
}

static eqat_status run(text *x)
{
    double started = tool_seconds();
    eqat_status st = eqat_generation_create(x->model, &x->generation, 1);
    if (st == EQAT_OK) st = show(x, false);
    for (size_t time = x->n_prompt, end = x->n_prompt + x->most; st == EQAT_OK && x->n < end;
         time = 1) {
        int32_t id;
        st = next(x, time, &id);
        if (x->n == x->n_prompt) x->prompt_seconds = tool_seconds() - started;
        if (st != EQAT_OK || id == eqat_tokenizer_eos(x->tokenizer)) break;
        x->ids[x->n++] = id;
        st = show(x, false);
    }
    x->seconds = tool_seconds() - started - x->prompt_seconds;
    return st == EQAT_OK ? show(x, true) : st;
}

static json_t *decoded(const text *x, const int32_t *ids, size_t n)
{
    const char *bytes;
    size_t length;
    if (eqat_tokenizer_decode(x->tokenizer, ids, n, EQAT_TOKENIZE_SKIP_SPECIAL, &bytes, &length) !=
        EQAT_OK)
        return json_null();
    return tool_text(bytes);
}

static void tell(text *x)
{
    size_t made = x->n - x->n_prompt;
    double rate = made > 1 ? (double)(made - 1) / x->seconds : 0;
    json_t *ids = json_array();
    for (size_t i = x->n_prompt; i < x->n; i++) json_array_append_new(ids, json_integer(x->ids[i]));
    tool_set(x->t, "prompt", decoded(x, x->ids, x->n_prompt));
    tool_set(x->t, "text", decoded(x, x->ids + x->n_prompt, made));
    tool_set(x->t, "prompt_tokens", json_integer((json_int_t)x->n_prompt));
    tool_set(x->t, "tokens", json_integer((json_int_t)made));
    tool_set(x->t, "ids", ids);
    tool_set(x->t, "prompt_seconds", tool_number(x->prompt_seconds));
    tool_set(x->t, "tokens_per_second", made > 1 ? tool_number(rate) : json_null());
    tool_event(x->t,
               json_pack("{s:s,s:I,s:I,s:f,s:f}", "event", "generate", "prompt_tokens",
                         (json_int_t)x->n_prompt, "tokens", (json_int_t)made, "prompt_seconds",
                         x->prompt_seconds, "seconds", x->seconds));
    if (x->t->context.log_level >= EQAT_LOG_INFO && made > 1)
        fprintf(stderr, "eqat: %zu tokens of prompt in %.2f s, then %.1f tokens a second\n",
                x->n_prompt, x->prompt_seconds, rate);
}

/* All of standard input, NUL-terminated; NULL: could not be read. */
static char *read_input(size_t *length)
{
    char *bytes = NULL;
    size_t capacity = 0;
    ssize_t n = getdelim(&bytes, &capacity, EOF, stdin);
    if (n < 0) n = 0;
    *length = (size_t)n;
    if (!ferror(stdin)) return bytes;
    free(bytes);
    return NULL;
}

static bool parse_count(const char *value, size_t *count)
{
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (errno || *end || end == value || n < 1 || n > INT32_MAX) return false;
    *count = (size_t)n;
    return true;
}

int command_generate(int argc, char **argv)
{
    tool t = {0};
    const char *path, *prompt = NULL, *tokens = "64";
    eqat_model_options model_options;
    eqat_context_options_init(&t.context, sizeof t.context);
    eqat_model_options_init(&model_options, sizeof model_options);
    text x = {.t = &t};
    eqat_choose_options_init(&x.choice, sizeof x.choice);
    const flag_own own[] = {
        {.name = "prompt",
         .value = "TEXT",
         .help = "what to continue; - for standard input",
         .text = &prompt},
        {.name = "tokens", .value = "N", .help = "at most so many; default 64", .text = &tokens},
        TOOL_FLAGS(&t),
    };
    const flag_group groups[] = {{"Choosing tokens", "choose", "", &x.choice, NULL},
                                 {"Computing", "model", "", &model_options, NULL},
                                 {"Context", "context", "", &t.context, tool_context_fields}};
    const flag_set set = {"generate MODEL --prompt TEXT [--tokens N]",
                          "Continues a text with the likeliest token each time, or with one that "
                          "is drawn, until the model ends it.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &path);
    if (code >= 0) return code;
    if (!path || !prompt) return flags_refuse("generate: expected a MODEL and --prompt TEXT");
    if (!parse_count(tokens, &x.most))
        return flags_refuse("generate: --tokens: found \"%s\", expected a number from 1", tokens);
    t.run = record_new("generate", argc, argv);
    json_object_set_new(t.run, "model", tool_text(path));
    record_options(t.run, "model", "model", &model_options);
    record_options(t.run, "choose", "choose", &x.choice);
    code = tool_open(&t);
    if (code) return code;
    eqat_model_info info = {.struct_size = sizeof info};
    size_t length = strlen(prompt);
    char *input = NULL;
    eqat_status st = EQAT_OK;
    if (!strcmp(prompt, "-")) {
        prompt = input = read_input(&length);
        if (!input) st = tool_fail(&t, EQAT_IO, "standard input: cannot read");
    }
    if (st == EQAT_OK) st = eqat_model_open(t.ctx, &x.model, path, &model_options);
    if (st == EQAT_OK) st = eqat_model_inspect(x.model, &info);
    if (st == EQAT_OK) {
        x.tokenizer = eqat_model_tokenizer(x.model);
        if (!x.tokenizer)
            st = tool_fail(&t, EQAT_NOT_FOUND,
                           "%s: found no tokenizer, expected one beside the model", path);
    }
    if (st == EQAT_OK) st = take_prompt(&x, prompt, length, info.max_positions);
    if (st == EQAT_OK) st = run(&x);
    if (st == EQAT_OK) tell(&x);
    eqat_generation_free(x.generation);
    eqat_model_free(x.model);
    free(x.ids);
    free(input);
    return tool_close(&t, st);
}
