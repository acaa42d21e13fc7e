/* The calls of oneDNN whose form differs between versions 2 and 3. */
#ifndef EQI_CPU_ONEDNN_H
#define EQI_CPU_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

#include <stdbool.h>
#include <stdint.h>

/* A row-major matrix, or, when blocked, in blocks of 64 columns, within a block row after row, for
 * bf16 pairs of rows. */
typedef struct dn_matrix {
    dnnl_data_type_t type;
    int64_t rows, cols;
    bool blocked;
} dn_matrix;

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t dn_desc;
typedef const_dnnl_memory_desc_t dn_desc_ref;
#else
typedef dnnl_memory_desc_t *dn_desc;
typedef const dnnl_memory_desc_t *dn_desc_ref;
#endif

static inline dnnl_status_t dn_init(dnnl_memory_desc_t *d, const dn_matrix *m)
{
    dnnl_dims_t dims = {m->rows, m->cols};
    dnnl_format_tag_t tag = !m->blocked ? dnnl_ab
        : m->type == dnnl_bf16          ? dnnl_BA16a64b2a
                                        : dnnl_BA16a64b;
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(d, 2, dims, m->type, tag);
#else
    return dnnl_memory_desc_init_by_tag(d, 2, dims, m->type, tag);
#endif
}

static inline void dn_drop(dnnl_memory_desc_t *d)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_destroy(*d);
#else
    (void)d;
#endif
}

static inline dn_desc_ref dn_ref(const dnnl_memory_desc_t *d)
{
#if DNNL_VERSION_MAJOR >= 3
    return *d;
#else
    return d;
#endif
}

static inline dn_desc_ref dn_query(const_dnnl_primitive_desc_t pd, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(pd, what, 0);
}

static inline size_t dn_size(dn_desc_ref d) { return dnnl_memory_desc_get_size(d); }

static inline dnnl_status_t dn_attributes(dnnl_primitive_attr_t *out, bool acc)
{
    dnnl_status_t st = dnnl_primitive_attr_create(out);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    /* f32 means f32, whatever the environment says. */
    if (st == dnnl_success) st = dnnl_primitive_attr_set_fpmath_mode(*out, dnnl_fpmath_mode_strict);
    if (st != dnnl_success || !acc) return st;
    dnnl_post_ops_t ops = NULL;
    st = dnnl_post_ops_create(&ops);
#if DNNL_VERSION_MAJOR >= 3
    if (st == dnnl_success) st = dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
#else
    if (st == dnnl_success) st = dnnl_post_ops_append_sum(ops, 1.0f);
#endif
    if (st == dnnl_success) st = dnnl_primitive_attr_set_post_ops(*out, ops);
    dnnl_post_ops_destroy(ops);
    return st;
}

static inline dnnl_status_t dn_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine,
                                       const_dnnl_primitive_attr_t attr,
                                       const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *b,
                                       const dnnl_memory_desc_t *c)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attr);
#else
    dnnl_matmul_desc_t d;
    dnnl_status_t st = dnnl_matmul_desc_init(&d, a, b, NULL, c);
    return st != dnnl_success ? st : dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
#endif
}

#endif
