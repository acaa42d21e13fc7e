#include "eqat/quantizer.h"
#include "quant/freeze.h"
#include "quant/kind.h"

enum { SCALES, ZEROS };

static eqat_status start(const eqi_quant *quant, eqi_tensor *w, eqi_tensor *moments,
                         eqi_tensor **tensors)
{
    return eqi_start_scales(quant->init, w, moments, &quant->desc, &tensors[SCALES],
                            &tensors[ZEROS]);
}

static eqat_status fake(const eqi_quant *quant, eqi_tape *tape, eqi_tensor *w,
                        eqi_tensor *const *tensors, eqi_weight *out)
{
    (void)tape; /* the linear op does it on the way */
    *out = (eqi_weight){.w = eqi_tensor_ref(w),
                        .s = eqi_tensor_ref(tensors[SCALES]),
                        .z = eqi_tensor_ref(tensors[ZEROS]),
                        .q = quant->desc};
    return EQAT_OK;
}

static eqat_status freeze(const eqi_quant *quant, eqi_tensor *w, eqi_tensor *const *tensors,
                          eqi_weight *packed)
{
    return eqi_quant_freeze(w, tensors[SCALES], tensors[ZEROS], &quant->desc, packed);
}

/* Round to nearest for any row: its own start, then the freeze without the clamps of Block-AP. */
static eqat_status start_and_freeze(const eqi_quant *quant, eqi_tensor *w, eqi_weight *packed)
{
    eqi_quant plain = *quant;
    eqi_tensor *tensors[EQI_KIND_TENSORS] = {NULL};
    plain.desc.clamp = false;
    *packed = (eqi_weight){0};
    EQI_RETURN_IF(plain.kind->start(&plain, w, NULL, tensors));
    eqat_status st = plain.kind->freeze(&plain, w, tensors, packed);
    for (int i = 0; i < EQI_KIND_TENSORS; i++) eqi_tensor_unref(tensors[i]);
    return st;
}

/* minmax reads w once for all three. */
static eqat_status round_affine(const eqi_quant *quant, eqi_tensor *w, eqi_weight *packed)
{
    if (quant->init->search) return start_and_freeze(quant, w, packed);
    *packed = (eqi_weight){.q = {.bits = quant->desc.bits, .group = quant->desc.group}};
    return eqi_quantize_minmax(w, &packed->q, &packed->s, &packed->z, &packed->codes);
}

static const eqi_quant_kind affine = {
    .name = "trained",
    .tensors = {{"scales", true}, {"zeros", true}},
    .start = start,
    .fake = fake,
    .freeze = freeze,
    .round = round_affine,
};

/* One of the two zero points in the middle, whichever and with whatever s gives a group the least
 * squared error. */
static eqat_status start_in_the_middle(const eqi_quant *quant, eqi_tensor *w, eqi_tensor *moments,
                                       eqi_tensor **tensors)
{
    eqi_quant_desc desc = quant->desc;
    eqi_start init = *quant->init;
    desc.middle = true;
    init.search = true;
    return eqi_start_scales(&init, w, moments, &desc, &tensors[SCALES], &tensors[ZEROS]);
}

static const eqi_quant_kind fixed = {
    .name = "fixed",
    .tensors = {{"scales", true}, {"zeros", false}},
    .start = start_in_the_middle,
    .fake = fake,
    .freeze = freeze,
    .round = start_and_freeze,
};

const eqi_quant_kind *const eqi_quant_kinds[] = {
    [EQAT_ZERO_POINT_TRAINED] = &affine,
    [EQAT_ZERO_POINT_FIXED] = &fixed,
};
