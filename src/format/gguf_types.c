#include "format/gguf_impl.h"

static const struct {
    uint32_t id;
    const char *name;
    int stored; /* -1: known by name, not read */
} types[] = {
    {0, "F32", EQI_STORED_F32},
    {1, "F16", EQI_STORED_F16},
    {2, "Q4_0", EQI_STORED_Q4_0},
    {3, "Q4_1", EQI_STORED_Q4_1},
    {6, "Q5_0", EQI_STORED_Q5_0},
    {7, "Q5_1", EQI_STORED_Q5_1},
    {8, "Q8_0", EQI_STORED_Q8_0},
    {9, "Q8_1", -1},
    {10, "Q2_K", -1},
    {11, "Q3_K", -1},
    {12, "Q4_K", EQI_STORED_Q4_K},
    {13, "Q5_K", EQI_STORED_Q5_K},
    {14, "Q6_K", EQI_STORED_Q6_K},
    {15, "Q8_K", -1},
    {16, "IQ2_XXS", -1},
    {17, "IQ2_XS", -1},
    {18, "IQ3_XXS", -1},
    {19, "IQ1_S", -1},
    {20, "IQ4_NL", -1},
    {21, "IQ3_S", -1},
    {22, "IQ2_S", -1},
    {23, "IQ4_XS", -1},
    {24, "I8", EQI_STORED_I8},
    {25, "I16", EQI_STORED_I16},
    {26, "I32", EQI_STORED_I32},
    {27, "I64", EQI_STORED_I64},
    {28, "F64", EQI_STORED_F64},
    {29, "IQ1_M", -1},
    {30, "BF16", EQI_STORED_BF16},
    {34, "TQ1_0", -1},
    {35, "TQ2_0", EQI_STORED_TQ2_0},
    {39, "MXFP4", -1},
    {40, "NVFP4", -1},
    {41, "Q1_0", -1},
    {42, "Q2_0", EQI_STORED_Q2_0},
    {142, "PQ2_0", -1},
    {143, "PTQ1_0", -1},
};

int64_t eqi_gguf_type_id(eqi_stored stored)
{
    for (size_t i = 0; i < EQI_COUNT(types); i++)
        if (types[i].stored == (int)stored) return types[i].id;
    return -1;
}

eqat_status eqi_gguf_find_type(eqi_ctx *ctx, const char *path, const char *name, uint32_t id,
                               eqi_stored *out)
{
    for (size_t i = 0; i < EQI_COUNT(types); i++) {
        if (types[i].id != id) continue;
        *out = (eqi_stored)types[i].stored;
        if (types[i].stored >= 0) return EQAT_OK;
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': type %s is not supported, expected F32, F16, BF16, "
                        "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_0 or TQ2_0",
                        path, name, types[i].name);
    }
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: tensor '%.200s': type number %u is not supported",
                    path, name, id);
}
