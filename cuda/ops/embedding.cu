/* embedding, embedding_bwd. Bytes needed and moved: the rows of the table that are named, and y
 * once (an element of F32 8, of BF16 4, of BF16 from F32 6), and the ids; backward dy once and the
 * named rows of dtable twice. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../vector.cuh"

/* y [R, H]; ids [R]; table [V, H]. A row whose id is out of range becomes 0. A block has one row.
 */
__global__ void __launch_bounds__(EQI_BLOCK)
    embedding_kernel(eqi_view y, eqi_view ids, eqi_view table, eqi_trouble *trouble)
{
    for (int64_t r = blockIdx.x; r < rows(y); r += gridDim.x) {
        int64_t id = get_int(ids, r);
        bool there = in_range(trouble, EQI_TROUBLE_ID, id, rows(table));
        for (int64_t j = threadIdx.x; j < width(y); j += blockDim.x)
            put(y, at2(y, r, j), there ? get(table, at2(table, id, j)) : 0.0f);
    }
}

/* Threads along a row, and rows above each other: eqi_tile. */
template <class Y, class X>
__global__ void __launch_bounds__(EQI_BLOCK)
    embedding_packs_kernel(vector_rows<Y> y, const int *ids, vector_rows<X> table, int64_t rows,
                           int packs, int64_t vocabulary, eqi_trouble *trouble)
{
    constexpr int N = EQI_LANES<Y, X>;
    for (int64_t r = row_first(); r < rows; r += row_step()) {
        int64_t id = ids[r];
        bool there = in_range(trouble, EQI_TROUBLE_ID, id, vocabulary);
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> p = {};
            if (there) p = load_pack<N>(table, id, i);
            store_pack(y, r, i, p);
        }
    }
}

static eqat_status embedding_packs(eqi_ctx *ctx, const eqi_packs &p, const eqi_view *y,
                                   const eqi_view *ids, const eqi_view *table)
{
    return eqi_with(y->dtype, [&](auto of_y) {
        auto launch = [&](auto of_table) {
            using Y = decltype(of_y);
            using X = decltype(of_table);
            return eqi_launch(ctx, "embedding", embedding_packs_kernel<Y, X>, p.grid, p.block, 0,
                              eqi_vector<Y>(p, y, 0), static_cast<const int *>(ids->data),
                              eqi_vector<X>(p, table, 1), p.rows, p.packs, table->shape[0],
                              eqi_cuda_of(ctx)->trouble);
        };
        return table->dtype == EQI_F16 ? launch(__half()) : eqi_with(table->dtype, launch);
    });
}

eqat_status eqi_cuda_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids,
                               const eqi_view *table)
{
    eqi_packs p;
    int lanes = eqi_cuda_size(table->dtype) == 2 ? 8 : eqi_lanes({y, table});
    if (eqi_rows_as_packs(&p, lanes, {y, table})) return embedding_packs(ctx, p, y, ids, table);
    return eqi_launch(ctx, "embedding", embedding_kernel, eqi_grid(eqi_cuda_rows(y), 1),
                      eqi_row_block(eqi_cuda_width(y)), 0, *y, *ids, *table,
                      eqi_cuda_of(ctx)->trouble);
}

eqat_status eqi_cuda_embedding_bwd(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids,
                                   const eqi_view *dy)
{
    return eqi_cuda_add_rows(ctx, "embedding_bwd", EQI_TROUBLE_ID, dtable, dy, ids, nullptr,
                             nullptr);
}
