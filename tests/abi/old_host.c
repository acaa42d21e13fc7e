/* A program as an older release of the headers would have compiled it: structs that end sooner,
 * with the program's own data behind them. And the same library twice in one process.
 *
 *     old_host LIBRARY COPY */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqat/eqat.h"

#define CALLS(X)                                                                                   \
    X(eqat_context_create)                                                                         \
    X(eqat_context_options_init)                                                                   \
    X(eqat_context_free) X(eqat_context_error) X(eqat_data_options_init) X(eqat_data_from_tokens)  \
        X(eqat_data_train_size) X(eqat_data_seq_len) X(eqat_data_free)                             \
            X(eqat_optimizer_options_init) X(eqat_quantizer_options_init) X(eqat_quantizer_create) \
                X(eqat_quantizer_lookup) X(eqat_quantizer_free) X(eqat_block_ap_options_init)      \
                    X(eqat_e2e_qp_options_init) X(eqat_save_options_init)                          \
                        X(eqat_model_options_init) X(eqat_status_name)

typedef struct calls {
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
} calls;

#define MUST(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "old_host.c:%d: %s is not so\n", __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

static calls load(const char *path, int flags)
{
    calls c;
    void *library = dlopen(path, RTLD_NOW | flags);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    MUST(library);
#define FIND(name)                             \
    *(void **)&c.name = dlsym(library, #name); \
    MUST(c.name);
    CALLS(FIND)
    return c;
}

/* ---- structs that end sooner ---- */

enum { MARK = 0x5a };

/* Every member up to `size` gets its default, and nothing behind it is touched. */
static void init_writes_no_further(void (*init)(void *, size_t), size_t whole)
{
    unsigned char full[512], part[512];
    MUST(whole <= sizeof full);
    memset(full, 0, sizeof full);
    init(full, whole);
    for (size_t size = sizeof(size_t); size <= whole; size += 8) {
        memset(part, MARK, sizeof part);
        init(part, size);
        MUST(*(size_t *)(void *)part == size);
        MUST(!memcmp(part + sizeof(size_t), full + sizeof(size_t), size - sizeof(size_t)));
        for (size_t i = size; i < sizeof part; i++) MUST(part[i] == MARK);
    }
}

/* As of a release whose eqat_data_options had no ranks and no key. */
typedef struct old_data_options {
    size_t struct_size;
    int64_t train_size, val_size, seq_len;
    int32_t sampling;
    bool shuffle;
    unsigned char mine[64];
} old_data_options;

static void older_program(const calls *c)
{
    static const int32_t ids[64] = {1, 2, 3};
    const size_t size = offsetof(eqat_data_options, rank);
    old_data_options o;
    eqat_context *ctx;
    eqat_data *data;
    memset(&o, MARK, sizeof o);
    c->eqat_data_options_init((eqat_data_options *)(void *)&o, size);
    MUST(o.struct_size == size && o.seq_len == 2048 && o.shuffle);
    for (size_t i = size; i < sizeof o; i++) MUST(((unsigned char *)&o)[i] == MARK);
    o.train_size = 3;
    o.val_size = 1;
    o.seq_len = 16;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    MUST(c->eqat_context_create(&ctx, NULL, NULL, 0) == EQAT_OK);
    MUST(c->eqat_data_from_tokens(ctx, &data, ids, 64, 8, (eqat_data_options *)(void *)&o) ==
         EQAT_OK);
    MUST(c->eqat_data_train_size(data) == 3 && c->eqat_data_seq_len(data) == 16);
    c->eqat_data_free(data);
    c->eqat_context_free(ctx);
}

/* A report into a shorter struct is not written past it. */
static void older_report(const calls *c)
{
    eqat_context *ctx;
    eqat_quantizer *q;
    unsigned char bytes[sizeof(eqat_quantizer_options) + 64];
    const size_t size = offsetof(eqat_quantizer_options, group_size) + sizeof(int32_t);
    MUST(c->eqat_context_create(&ctx, NULL, NULL, 0) == EQAT_OK);
    MUST(c->eqat_quantizer_create(ctx, &q, NULL) == EQAT_OK);
    memset(bytes, MARK, sizeof bytes);
    *(size_t *)(void *)bytes = size;
    MUST(c->eqat_quantizer_lookup(q, "model.layers.0.mlp.up_proj",
                                  (eqat_quantizer_options *)(void *)bytes));
    for (size_t i = size; i < sizeof bytes; i++) MUST(bytes[i] == MARK);
    c->eqat_quantizer_free(q);
    c->eqat_context_free(ctx);
}

/* ---- the library twice ---- */

static void *owner(void *function)
{
    Dl_info info;
    MUST(dladdr(function, &info));
    return info.dli_fbase;
}

static void two_at_once(const calls *a, const calls *b)
{
    eqat_context *x, *y;
    MUST(owner(*(void **)&a->eqat_data_free) != owner(*(void **)&b->eqat_data_free));
    MUST(a->eqat_context_create(&x, NULL, NULL, 0) == EQAT_OK);
    MUST(b->eqat_context_create(&y, NULL, NULL, 0) == EQAT_OK);
    older_program(a);
    older_program(b);
    a->eqat_context_free(x);
    older_report(b);
    b->eqat_context_free(y);
}

int main(int argc, char **argv)
{
    MUST(argc == 3);
    const calls c = load(argv[1], RTLD_GLOBAL);
    init_writes_no_further((void (*)(void *, size_t))c.eqat_context_options_init,
                           sizeof(eqat_context_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_data_options_init,
                           sizeof(eqat_data_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_quantizer_options_init,
                           sizeof(eqat_quantizer_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_block_ap_options_init,
                           sizeof(eqat_block_ap_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_e2e_qp_options_init,
                           sizeof(eqat_e2e_qp_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_optimizer_options_init,
                           sizeof(eqat_optimizer_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_save_options_init,
                           sizeof(eqat_save_options));
    init_writes_no_further((void (*)(void *, size_t))c.eqat_model_options_init,
                           sizeof(eqat_model_options));
    older_program(&c);
    older_report(&c);
    const calls other = load(argv[2], RTLD_GLOBAL);
    two_at_once(&c, &other);
    puts("structs that end sooner, and the library twice: ok");
    return 0;
}
