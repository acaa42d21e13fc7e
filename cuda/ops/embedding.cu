/* embedding, embedding_bwd. Bytes moved: the rows of the table that are named, and y once; backward
 * dy once and the named rows of dtable twice. A block has one row. */
#include "../launch.cuh"
#include "../load.cuh"

/* y [R, H]; ids [R]; table [V, H]. A row whose id is out of range becomes 0. */
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

eqat_status eqi_cuda_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids,
                               const eqi_view *table)
{
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
