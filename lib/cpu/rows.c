#include "cpu/gemm.h"

eqi_rows eqi_rows_of(const eqi_view *v)
{
    return (eqi_rows){.kind = EQI_ROWS_DENSE,
                      .dtype = v->dtype,
                      .data = v->data,
                      .ld = v->stride[0],
                      .rows = v->shape[0],
                      .cols = v->shape[1]};
}

static void quantizer(eqi_rows *m, const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    m->s = s->data;
    m->s_ld = s->stride[0];
    m->z = z->data;
    m->z_u8 = z->dtype == EQI_U8;
    m->z_ld = z->stride[0];
    m->q = *q;
}

eqi_rows eqi_rows_fake_quant(const eqi_view *w, const eqi_view *s, const eqi_view *z,
                             const eqi_quant_desc *q)
{
    eqi_rows m = eqi_rows_of(w);
    m.kind = EQI_ROWS_FAKE_QUANT;
    quantizer(&m, s, z, q);
    return m;
}

eqi_rows eqi_rows_packed(const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                         const eqi_quant_desc *q, int64_t cols)
{
    eqi_rows m = eqi_rows_of(codes);
    m.kind = EQI_ROWS_PACKED;
    m.cols = cols;
    quantizer(&m, s, z, q);
    return m;
}
