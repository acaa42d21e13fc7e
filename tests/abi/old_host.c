/* A program as an older release of the headers would have compiled it: structs that end sooner,
 * with the program's own data behind them. And the same library twice in one process.
 *
 *     old_host LIBRARY COPY */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqat/eqat.h"

typedef struct calls {
    __typeof__(&eqat_context_create) eqat_context_create;
    __typeof__(&eqat_context_options_init) eqat_context_options_init;
    __typeof__(&eqat_context_free) eqat_context_free;
    __typeof__(&eqat_context_error) eqat_context_error;
    __typeof__(&eqat_data_options_init) eqat_data_options_init;
    __typeof__(&eqat_data_from_tokens) eqat_data_from_tokens;
    __typeof__(&eqat_data_train_size) eqat_data_train_size;
    __typeof__(&eqat_data_seq_len) eqat_data_seq_len;
    __typeof__(&eqat_data_free) eqat_data_free;
    __typeof__(&eqat_optimizer_options_init) eqat_optimizer_options_init;
    __typeof__(&eqat_quantizer_options_init) eqat_quantizer_options_init;
    __typeof__(&eqat_quantizer_create) eqat_quantizer_create;
    __typeof__(&eqat_quantizer_lookup) eqat_quantizer_lookup;
    __typeof__(&eqat_quantizer_free) eqat_quantizer_free;
    __typeof__(&eqat_block_ap_options_init) eqat_block_ap_options_init;
    __typeof__(&eqat_e2e_qp_options_init) eqat_e2e_qp_options_init;
    __typeof__(&eqat_save_options_init) eqat_save_options_init;
    __typeof__(&eqat_model_options_init) eqat_model_options_init;
    __typeof__(&eqat_status_name) eqat_status_name;
} calls;

#define MUST(condition)                                                             \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "old_host.c:%d: %s is not so\n", __LINE__, #condition); \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

#define FIND(name) MUST((*(void **)&c.name = dlsym(library, #name)) != NULL)

static calls load(const char *path)
{
    calls c;
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    MUST(library);
    FIND(eqat_context_create);
    FIND(eqat_context_options_init);
    FIND(eqat_context_free);
    FIND(eqat_context_error);
    FIND(eqat_data_options_init);
    FIND(eqat_data_from_tokens);
    FIND(eqat_data_train_size);
    FIND(eqat_data_seq_len);
    FIND(eqat_data_free);
    FIND(eqat_optimizer_options_init);
    FIND(eqat_quantizer_options_init);
    FIND(eqat_quantizer_create);
    FIND(eqat_quantizer_lookup);
    FIND(eqat_quantizer_free);
    FIND(eqat_block_ap_options_init);
    FIND(eqat_e2e_qp_options_init);
    FIND(eqat_save_options_init);
    FIND(eqat_model_options_init);
    FIND(eqat_status_name);
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
    const calls c = load(argv[1]);
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
    const calls other = load(argv[2]);
    two_at_once(&c, &other);
    puts("structs that end sooner, and the library twice: ok");
    return 0;
}
