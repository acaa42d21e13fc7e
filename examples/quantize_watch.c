/* Quantizes a model with a log, a line of progress, and an end on Ctrl-C that leaves nothing half
 * done.
 *
 *     quantize_watch MODEL DATA OUT [OPTION=VALUE]...      e.g. bits=3 train_size=512 epochs=1
 *
 * The options are those of eqat_quantizer_options, eqat_data_options and eqat_block_ap_options. */
#include <eqat/eqat.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static eqat_context *ctx;

/* eqat_context_cancel may be called from a signal handler. */
static void interrupted(int signal)
{
    (void)signal;
    eqat_context_cancel(ctx);
}

static void write_log(void *user, int32_t level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    fprintf(user, "\r%s: %s\n", names[level], line);
}

/* A rate from the first step on. */
static int32_t show_progress(void *user, const eqat_progress *p)
{
    double seconds = difftime(time(NULL), *(const time_t *)user);
    double left = p->step > 0 ? seconds * (double)(p->steps - p->step) / (double)p->step : 0;
    fprintf(stderr, "\rblock %lld of %lld, step %lld of %lld, loss %.3e, %.0f s left   ",
            (long long)p->block + 1, (long long)p->blocks, (long long)p->step, (long long)p->steps,
            p->loss, left);
    if (p->step == p->steps) fputc('\n', stderr);
    return 0; /* anything else cancels, too */
}

typedef struct choices {
    eqat_quantizer_options quantizer;
    eqat_data_options data;
    eqat_block_ap_options block_ap;
} choices;

/* "name=value" of whichever struct has the name. */
static eqat_status choose(choices *c, char *text)
{
    const char *const names[] = {"quantizer", "data", "block_ap"};
    void *const structs[] = {&c->quantizer, &c->data, &c->block_ap};
    char *value = strchr(text, '=');
    eqat_status st = EQAT_NOT_FOUND;
    if (value) *value++ = '\0';
    for (int i = 0; i < 3 && st == EQAT_NOT_FOUND; i++)
        st = eqat_options_set(ctx, names[i], structs[i], text, value ? value : "");
    return st;
}

static eqat_status quantize(const char *path, const char *text, const char *out, choices *c)
{
    eqat_model *model = NULL;
    eqat_quantizer *quantizer = NULL;
    eqat_data *data = NULL;
    time_t start = time(NULL);
    c->block_ap.progress = show_progress;
    c->block_ap.progress_user = &start;
    eqat_status st = eqat_model_open(ctx, &model, path, NULL);
    if (st == EQAT_OK) st = eqat_quantizer_create(ctx, &quantizer, &c->quantizer);
    if (st == EQAT_OK)
        st = eqat_data_open(ctx, &data, text, eqat_model_tokenizer(model), 0, &c->data);
    if (st == EQAT_OK) st = eqat_block_ap_quantize(model, quantizer, data, &c->block_ap);
    if (st == EQAT_OK) st = eqat_model_save(model, out, NULL);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    return st;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: quantize_watch MODEL DATA OUT [OPTION=VALUE]...\n");
        return 2;
    }
    char line[512];
    choices c;
    eqat_context_options o;
    eqat_quantizer_options_init(&c.quantizer, sizeof c.quantizer);
    eqat_data_options_init(&c.data, sizeof c.data);
    eqat_block_ap_options_init(&c.block_ap, sizeof c.block_ap);
    eqat_context_options_init(&o, sizeof o);
    o.log = write_log;
    o.log_user = stderr;
    if (eqat_context_create(&ctx, &o, line, sizeof line) != EQAT_OK) {
        fprintf(stderr, "quantize_watch: %s\n", line);
        return 1;
    }
    signal(SIGINT, interrupted);
    eqat_status st = EQAT_OK;
    for (int i = 4; i < argc && st == EQAT_OK; i++) st = choose(&c, argv[i]);
    if (st == EQAT_OK) st = quantize(argv[1], argv[2], argv[3], &c);
    signal(SIGINT, SIG_DFL);
    if (st != EQAT_OK) fprintf(stderr, "\nquantize_watch: %s\n", eqat_context_error(ctx));
    eqat_context_free(ctx);
    return st == EQAT_OK ? 0 : st == EQAT_CANCELLED ? 130 : 1;
}
