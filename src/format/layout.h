/* Storage layouts: how the codes, scales and zero points of packed linears lie in the tensors
 * of a file, to and from the engine's eqi_weight (docs/formats.md). A layout is one file of this
 * folder and a row in layouts.c; src/model names none of them. */
#ifndef EQI_FORMAT_LAYOUT_H
#define EQI_FORMAT_LAYOUT_H

#include <jansson.h>

#include "format/moves.h"
#include "format/packed.h"
#include "format/shards.h"

/* One of the tensors that a packed linear is stored as, "<linear>.<suffix>". */
typedef struct eqi_layout_tensor {
    const char *suffix;
    eqi_stored stored;  /* as it is written */
    eqi_accepted types; /* as it is read */
    bool optional;      /* when it is read */
    bool read_alone;    /* never written */
    int ndim;
    int64_t shape[2];
} eqi_layout_tensor;

#define EQI_LAYOUT_TENSORS 6 /* of one linear, at most */

/* What symmetric linears, of which every zero point is 2^(bits-1) or can be moved there, are worth
 * to a layout. */
typedef enum eqi_symmetry {
    EQI_SYMMETRY_NONE,
    EQI_SYMMETRY_GROUPS, /* moves what groups it can, and says nothing */
    EQI_SYMMETRY_ALL,    /* says so of a model of nothing else */
} eqi_symmetry;

/* quantization_config of an input. */
typedef struct eqi_packing {
    const struct eqi_layout *layout; /* NULL: config.json has none, and no linear is packed */
    int bits;
    int64_t group; /* -1: the whole row */
    bool varies;   /* linears may differ from bits and group */
    bool less_one; /* zero points are stored less one, mod 2^bits */
    /* Bit b: at b bits the ones were taken from whole words instead, zero points of 0 borrowing. */
    unsigned borrows;
} eqi_packing;

typedef struct eqi_layout {
    const char *name; /* "gptq_v2" */
    /* quantization_config is of this layout when its quant_method is `method` and its `key` is
     * `value`, or is missing and the layout is the implied one. Rows of one method stand together
     * and have one key. NULL: recognised otherwise, see layouts.c. */
    const char *method, *key, *value;
    bool implied;
    const char *mark; /* a linear is packed when it has a tensor of this suffix */

    /* NULL: config.json says nothing of it. bits, group and varies from a quantization_config of
     * this layout; `path` is for messages. What cannot be read is EQAT_UNSUPPORTED naming the key.
     */
    eqat_status (*parse)(eqi_ctx *ctx, const json_t *config, const char *path, eqi_packing *out);
    /* linear->q of a linear that has the mark, bits 0 when it is not packed all the same; may be
     * any number that its tensors suggest, for they are held against it next. */
    void (*describe)(const eqi_packing *packing, const eqi_source *source,
                     eqi_layout_linear *linear);
    /* Whether the layout can hold the linear. EQAT_UNSUPPORTED with the line why not. */
    eqat_status (*check)(eqi_ctx *ctx, const eqi_layout_linear *linear);
    /* The tensors of a linear, in the order in which they are written; their number. */
    int (*tensors)(const eqi_layout_linear *linear, eqi_layout_tensor list[EQI_LAYOUT_TENSORS]);
    /* Fills in *out, which holds zeros; scales need not be of fp16 yet. */
    eqat_status (*read)(const eqi_packing *packing, eqi_source *source,
                        const eqi_layout_linear *linear, eqi_packed *out);

    /* Writing; `write` NULL: the layout is read alone. */
    eqi_symmetry symmetry;
    bool symmetric_alone; /* a model that is not symmetric is refused unless allow_asymmetric */
    int least_zero;       /* what a group is moved to, where it can be */
    bool uniform;         /* one pair of bits and group for all */
    const char *kind;     /* metadata of the weight files; NULL: "pt" */
    const char *also;     /* another key of config.json that holds the same; NULL: none */
    const char *dtype;    /* torch_dtype of config.json; NULL: as it came */
    /* Anything else that the tensors of a linear depend on, from what will be written; NULL:
     * nothing. */
    void (*judge)(eqi_layout_linear *linear, const eqi_packed *packed);
    /* The data of `tensors`, in its order. */
    eqat_status (*write)(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *linear,
                         const eqi_packed *packed);
    /* A new quantization_config for all linears of a model, in order, those that are not packed
     * among them; at least one is. NULL: out of memory. The member NULL: there is none. */
    json_t *(*config)(const eqi_layout_linear *linears, size_t n);
    /* What engines cannot do with such a model is said in the log; NULL: nothing. */
    void (*warn)(eqi_ctx *ctx, const eqi_layout_linear *linears, size_t n);
} eqi_layout;

size_t eqi_layout_count(void);
const eqi_layout *eqi_layout_at(size_t i);
const eqi_layout *eqi_layout_default(void); /* of saved folders */
/* The layout of this name that can be written; NULL: none. */
const eqi_layout *eqi_layout_find(const char *name);

/* json: the whole config.json. A method or a layout that is not in the table is EQAT_UNSUPPORTED by
 * name. */
eqat_status eqi_packing_parse(eqi_ctx *ctx, eqi_packing *out, const json_t *json, const char *path);
/* Of a GGUF file, which says of each tensor what it is. */
eqi_packing eqi_packing_of_gguf(void);
/* Fills in linear->q, bits 0 when the source has the linear unpacked, and holds the tensors of a
 * packed one against it; a packing without a layout gets one when config.json need not name it.
 * `path` is the model's, for messages. */
eqat_status eqi_packing_expect(eqi_packing *packing, const eqi_source *source, const char *path,
                               eqi_layout_linear *linear);

/* New codes, s and z of a packed linear in *out; whatever is there after a failure is the caller's
 * too. Scales are rounded to fp16; one that is not finite or zero is EQAT_NUMERIC. */
eqat_status eqi_packing_read(const eqi_packing *packing, eqi_source *source,
                             const eqi_layout_linear *linear, eqi_weight *out);

/* Whether every zero point can be moved to 2^(bits-1). */
eqat_status eqi_layout_survey(eqi_ctx *ctx, const eqi_layout *layout, eqi_layout_linear *linear,
                              eqi_packed *packed);
eqat_status eqi_layout_declare(const eqi_layout *layout, eqi_shards *out,
                               const eqi_layout_linear *linear);
/* Moves the groups of a linear to where the layout wants them, and writes it. */
eqat_status eqi_layout_write(eqi_ctx *ctx, const eqi_layout *layout, eqi_shards *out,
                             const eqi_layout_linear *linear, eqi_packed *packed);
/* What the tensors of a packed linear take: written, and in the source that has it. */
int64_t eqi_layout_bytes(const eqi_layout *layout, const eqi_layout_linear *linear);
int64_t eqi_packing_bytes(const eqi_packing *packing, const eqi_source *source,
                          const eqi_layout_linear *linear);

#endif
