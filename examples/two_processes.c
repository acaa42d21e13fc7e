/* Two processes train one model, each on half of the samples: gradients and sums go through a
 * socket, and both end with the same bytes. A driver over machines differs in `exchange` alone.
 *
 *     two_processes MODEL TOKENS OUT        writes OUT-0 and OUT-1 */
#include <eqat/eqat.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORLD = 2 };

typedef struct rank {
    int number, socket;
    void *own, *others; /* of `room` bytes each */
    size_t room;
} rank;

static bool transfer(int socket, char *p, size_t bytes, bool sends)
{
    while (bytes > 0) {
        ssize_t n = sends ? send(socket, p, bytes, MSG_NOSIGNAL) : recv(socket, p, bytes, 0);
        if (n <= 0) return false; /* the other rank has gone */
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

static eqat_status make_room(rank *r, size_t bytes)
{
    if (bytes <= r->room) return EQAT_OK;
    free(r->own);
    free(r->others);
    r->own = malloc(bytes);
    r->others = malloc(bytes);
    r->room = r->own && r->others ? bytes : 0;
    return r->room ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

/* What the other rank has at `own`; one of them sends first, the other receives. */
static eqat_status exchange(rank *r, size_t bytes)
{
    for (int turn = 0; turn < WORLD; turn++) {
        bool sends = turn == r->number;
        if (!transfer(r->socket, sends ? r->own : r->others, bytes, sends)) return EQAT_IO;
    }
    return EQAT_OK;
}

/* Every gradient becomes the mean over ranks; a + b is b + a to the bit. */
static eqat_status average(void *user, eqat_tensor *const *parameters, size_t count)
{
    rank *r = user;
    eqat_status st = EQAT_OK;
    for (size_t i = 0; i < count && st == EQAT_OK; i++) {
        eqat_tensor *grad = eqat_tensor_grad(parameters[i]);
        size_t n = (size_t)eqat_tensor_count(grad), bytes = n * sizeof(float);
        st = make_room(r, bytes);
        if (st == EQAT_OK) st = eqat_tensor_read(grad, r->own, bytes);
        if (st == EQAT_OK) st = exchange(r, bytes);
        if (st != EQAT_OK) break;
        float *own = r->own, *others = r->others;
        for (size_t k = 0; k < n; k++) own[k] = (own[k] + others[k]) / WORLD;
        st = eqat_tensor_write(grad, own, bytes);
    }
    return st;
}

static eqat_status add_up(void *user, double *sums, size_t count)
{
    rank *r = user;
    eqat_status st = make_room(r, count * sizeof *sums);
    if (st != EQAT_OK) return st;
    for (size_t k = 0; k < count; k++) ((double *)r->own)[k] = sums[k];
    st = exchange(r, count * sizeof *sums);
    for (size_t k = 0; k < count && st == EQAT_OK; k++) sums[k] += ((double *)r->others)[k];
    return st;
}

static eqat_status train(eqat_context *ctx, rank *r, char **argv)
{
    eqat_model *model = NULL;
    eqat_quantizer *quantizer = NULL;
    eqat_data *data = NULL;
    eqat_data_options d;
    eqat_block_ap_options o;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 64;
    d.val_size = 8;
    d.seq_len = 64;
    d.rank = r->number; /* samples of its own */
    d.world = WORLD;
    eqat_block_ap_options_init(&o, sizeof o);
    o.gradient = average;
    o.reduce = add_up;
    o.gradient_user = o.reduce_user = r;
    eqat_status st = eqat_model_open(ctx, &model, argv[1], NULL);
    if (st == EQAT_OK) st = eqat_quantizer_create(ctx, &quantizer, NULL);
    if (st == EQAT_OK) st = eqat_data_open(ctx, &data, argv[2], eqat_model_tokenizer(model), 0, &d);
    if (st == EQAT_OK) st = eqat_block_ap_quantize(model, quantizer, data, &o);
    char out[4096];
    snprintf(out, sizeof out, "%s-%d", argv[3], r->number); /* one of them would do */
    if (st == EQAT_OK) st = eqat_model_save(model, out, NULL);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    return st;
}

static int run(int number, int socket, char **argv)
{
    rank r = {.number = number, .socket = socket};
    eqat_context *ctx;
    char line[512];
    if (eqat_context_create(&ctx, NULL, line, sizeof line) != EQAT_OK)
        return fprintf(stderr, "two_processes: %s\n", line), 1;
    eqat_status st = train(ctx, &r, argv);
    if (st != EQAT_OK)
        fprintf(stderr, "two_processes: rank %d: %s\n", number, eqat_context_error(ctx));
    else
        printf("rank %d: wrote %s-%d\n", number, argv[3], number);
    eqat_context_free(ctx);
    free(r.own);
    free(r.others);
    close(socket); /* the other rank, if it still waits, learns that this one has gone */
    return st != EQAT_OK;
}

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: two_processes MODEL TOKENS OUT\n"), 2;
    int ends[WORLD], status = 1;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return perror("socketpair"), 1;
    pid_t child = fork(); /* before there is a context */
    if (child < 0) return perror("fork"), 1;
    int number = child == 0;
    close(ends[!number]);
    int failed = run(number, ends[number], argv);
    if (number == 1) return failed;
    waitpid(child, &status, 0);
    return failed || status != 0;
}
