#include "eqat/eqat.h"
#include "fuzz.h"

eqat_status eqat_fuzz_use(eqi_ctx *ctx, const char *path)
{
    eqat_model *model;
    eqat_tensor *logits = NULL;
    const int32_t ids[3] = {0};
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = 1;
    b.time = 3;
    b.ids = ids;
    EQI_RETURN_IF(eqat_model_open(ctx, &model, path, NULL));
    eqat_status st = eqat_model_inspect(model, &info);
    if (st == EQAT_OK) st = eqat_model_forward(model, NULL, &b, &logits);
    eqat_tensor_free(logits);
    eqat_model_free(model);
    return st;
}
