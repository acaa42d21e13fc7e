/* A kind of quantizer is a row: the tensors that stand beside a weight while it trains, the rule
 * that makes w^ of them, and the freeze to codes, scales and zero points. Nothing else in the
 * library asks which kind it is. */
#ifndef EQI_QUANT_KIND_H
#define EQI_QUANT_KIND_H

#include "ops/ops.h"
#include "quant/start.h"

#define EQI_KIND_TENSORS 2

typedef struct eqi_quant_kind eqi_quant_kind;

/* How one linear is quantized. */
typedef struct eqi_quant {
    const eqi_quant_kind *kind; /* NULL: not at all */
    eqi_quant_desc desc;
    const eqi_start *init; /* where scales and zero points start */
} eqi_quant;

struct eqi_quant_kind {
    const char *name; /* "trained", a word of the option zero_point */
    struct {
        const char *name; /* behind the linear's: "scales"; NULL ends the list */
        bool trains;
    } tensors[EQI_KIND_TENSORS];
    /* New tensors, F32, for w F32 [N, K]; NULL each after a failure. moments: of the inputs, as
     * quant->init asks; NULL: not known. */
    eqat_status (*start)(const eqi_quant *quant, eqi_tensor *w, eqi_tensor *moments,
                         eqi_tensor **tensors);
    /* w^ on the tape, as a weight for eqi_op_linear that is dense or fake-quantized, without bias;
     * released by the caller. */
    eqat_status (*fake)(const eqi_quant *quant, eqi_tape *tape, eqi_tensor *w,
                        eqi_tensor *const *tensors, eqi_weight *out);
    /* Masters to storage: s rounded to fp16, z to U8, codes taken with these. *packed owns new
     * tensors, without bias. */
    eqat_status (*freeze)(const eqi_quant *quant, eqi_tensor *w, eqi_tensor *const *tensors,
                          eqi_weight *packed);
    /* Round to nearest: start and freeze without the clamps of Block-AP. w F32, BF16 or F16. */
    eqat_status (*round)(const eqi_quant *quant, eqi_tensor *w, eqi_weight *packed);
};

/* By enum eqat_zero_point. */
extern const eqi_quant_kind *const eqi_quant_kinds[];

#endif
