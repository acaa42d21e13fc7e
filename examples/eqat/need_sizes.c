#include "need_sizes.h"

#include <string.h>

/* Of one block, or summed over blocks. */
typedef struct block_size {
    double weights; /* in linears */
    double groups;
    double packed;    /* bytes of codes, scales F32 and zero points in memory */
    double stored;    /* bytes of the linears in a file */
    double moments;   /* bytes of those of the inputs, each once, for error feedback */
    double factor;    /* bytes of what it makes of the largest */
    int64_t measured; /* number of the last input that is counted; -1: none is */
} block_size;

static double larger(double a, double b) { return a > b ? a : b; }

/* As it will be, or as it is where nothing quantizes it. */
static eqat_quantizer_options quantization(const need *n, const eqat_linear_info *l)
{
    eqat_quantizer_options o = {.struct_size = sizeof o};
    if (!n->quantizer) {
        o.bits = l->bits;
        o.group_size = l->group_size;
    } else if (!eqat_quantizer_lookup(n->quantizer, l->name, &o)) {
        o.bits = 0;
    }
    return o;
}

static bool is_gguf(const need *n) { return n->format && !strcmp(n->format, "gguf"); }

/* Of the type that holds such a linear whatever its codes. */
static double gguf_bits(const eqat_quantizer_options *o)
{
    int32_t bits = o->zero_point == EQAT_ZERO_POINT_FIXED ? o->bits : o->bits + 1;
    return bits <= 2 ? 2.25 : bits <= 4 ? 4.5 : bits <= 5 ? 5.5 : 8.5;
}

static void add_linear(const need *n, const eqat_linear_info *l, block_size *b)
{
    eqat_quantizer_options o = quantization(n, l);
    double weights = (double)l->out_features * (double)l->in_features;
    b->weights += weights;
    if (!o.bits) {
        b->stored += 2 * weights;
        return;
    }
    double groups = weights / (double)(o.group_size > 0 ? o.group_size : (int32_t)l->in_features);
    b->groups += groups;
    if (o.init == EQAT_INIT_GPTQ) {
        double square = (double)l->in_features * (double)l->in_features;
        b->moments += l->input == b->measured ? 0 : 4 * square;
        b->measured = l->input;
        b->factor = larger(b->factor, larger(4 * square, 8 * weights));
    }
    b->packed += weights * o.bits / 8 + groups * 5;
    b->stored += is_gguf(n)
        ? weights * gguf_bits(&o) / 8
        : weights * o.bits / 8 + groups * (2 + o.bits / 8.0) + 4 * (double)l->in_features;
}

static eqat_status block_of(const need *n, int64_t index, block_size *b)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    *b = (block_size){.measured = -1};
    for (int64_t i = 0; i < eqat_model_linear_count(n->model, index); i++) {
        eqat_status st = eqat_model_linear(n->model, index, i, &l);
        if (st != EQAT_OK) return st;
        add_linear(n, &l, b);
    }
    return EQAT_OK;
}

/* What backward keeps of one block: two norms, q, k, v, attention, projection, residuals, gate, up
 * and their product. */
static double activations(const eqat_model_info *m, double rows, double element)
{
    double width = 6.0 * (double)m->hidden_size +
        2.0 * (double)((m->heads + m->kv_heads) * m->head_dim) + 3.0 * (double)m->intermediate_size;
    return rows * width * element;
}

/* Operands of products, packed anew. */
static double panels(const eqat_model_info *m, double rows, double element)
{
    double bytes = rows * (double)(m->hidden_size + m->intermediate_size) * element;
    return bytes < 32e6 ? bytes : 32e6;
}

/* Weights, moments and activations at the begin of backward, with gradients in their place at its
 * end; scales and zero points with theirs. At the start of a block its weights, the second moments
 * of its inputs, and the pass that takes them or one linear's error feedback, during which its own
 * moments are gone. */
static double block_ap_bytes(const need *n, const eqat_model_info *m, const block_size *largest,
                             double packed, double element)
{
    double samples = (double)(n->train + n->val), batch = (double)n->block_ap->batch_size;
    double rows = (batch < samples ? batch : samples) * (double)n->data->seq_len;
    double embedding = (double)m->vocab_size * (double)m->hidden_size * element;
    double weights = 4 * largest->weights;
    bool logits = n->block_ap->last_loss == EQAT_LAST_LOSS_LOGITS;
    double head = logits ? embedding : 0;
    double training = head + 3 * weights + larger(weights, 2 * activations(m, rows, element)) +
        32 * largest->groups + panels(m, rows, element) + packed;
    double start = weights + largest->moments +
        larger(activations(m, rows, element), largest->factor) + packed;
    return larger(larger(training, start), embedding);
}

/* Streams of a step, and one block. */
static double teacher_bytes(const need *n, const eqat_model_info *m, const block_size *all,
                            double element)
{
    double token = (double)m->hidden_size * element, length = (double)n->e2e_data->seq_len;
    double streams = (double)n->e2e->batch_size * length * token,
           micro = (double)n->e2e->micro_batch_size * length * token;
    return larger(micro, streams < 256e6 ? streams : 256e6) +
        all->weights / (double)m->blocks * element;
}

static double e2e_bytes(const need *n, const eqat_model_info *m, const block_size *all,
                        double element)
{
    double rows = (double)n->e2e->micro_batch_size * (double)n->e2e_data->seq_len;
    double ends = (m->tied_embeddings ? 1 : 2) * (double)m->vocab_size * (double)m->hidden_size;
    double judged = !n->e2e_val ? 0 : n->e2e->keep == EQAT_KEEP_BEST ? 8 : 4; /* copies */
    double trained = (n->e2e->params == EQAT_E2E_SZ ? 2 : 1) * (20 + judged) * all->groups;
    double blocks = (double)m->blocks, kept = n->e2e->keep_activations ? blocks : 1;
    double taught = n->e2e->teacher ? ends * element + teacher_bytes(n, m, all, element) : 0;
    return all->packed + trained + ends * element + taught +
        blocks * rows * (double)m->hidden_size * element +
        (kept + 1) * activations(m, rows, element) + panels(m, rows, element);
}

/* States of jobs: all blocks packed, one of them with its masters and moments; then scales and zero
 * points with theirs, and with copies of the last good and the best ones, beside the last state of
 * Block-AP. */
static double checkpoint_bytes(const need *n, const block_size *all, const block_size *largest)
{
    double parts = n->e2e_data && n->e2e->params == EQAT_E2E_SZ ? 2 : 1;
    double blocks = n->data ? all->packed + 12 * largest->weights + 24 * largest->groups : 0;
    double each = n->e2e_data ? 16 + (n->e2e->keep == EQAT_KEEP_BEST ? 4 : 0) : 0;
    double scales = each * parts * all->groups;
    return larger(2 * blocks, blocks + 2 * scales);
}

static eqat_status add_blocks(const need *n, const eqat_model_info *m, block_size *all,
                              block_size *largest, need_sizes *out)
{
    for (int64_t i = 0; i < m->blocks; i++) {
        block_size b;
        eqat_status st = block_of(n, i, &b);
        if (st != EQAT_OK) return st;
        if (i == 0) out->first = b.weights;
        if (b.weights > largest->weights) *largest = b;
        all->weights += b.weights;
        all->groups += b.groups;
        all->packed += b.packed;
        all->stored += b.stored;
    }
    return EQAT_OK;
}

eqat_status need_sizes_of(const need *n, need_sizes *out)
{
    eqat_model_info m = {.struct_size = sizeof m};
    block_size all = {0}, largest = {0};
    *out = (need_sizes){0};
    eqat_status st = eqat_model_inspect(n->model, &m);
    if (st == EQAT_OK) st = add_blocks(n, &m, &all, &largest, out);
    if (st != EQAT_OK) return st;
    double element = n->model_options->compute_dtype == EQAT_F32 ? 4 : 2;
    out->all = all.weights;
    out->head = (double)m.vocab_size * (double)m.hidden_size;
    out->ends_in = (double)m.bytes - m.linear_bits / 8 * (double)m.linear_parameters;
    double wide = 2 * (double)(m.parameters - m.linear_parameters); /* F16 for blocks of GGUF */
    out->ends = is_gguf(n) ? out->ends_in : larger(out->ends_in, wide);
    out->out = all.stored + out->ends;
    if (n->data) {
        double samples = (double)(n->train + n->val);
        out->streams = 2 * samples * (double)n->data->seq_len * (double)m.hidden_size * element;
        out->block_ap = block_ap_bytes(n, &m, &largest, all.packed, element);
    } else if (n->quantizer) {
        out->block_ap = 4 * largest.weights + all.packed;
    }
    if (n->e2e_data) out->e2e = e2e_bytes(n, &m, &all, element);
    if (n->checkpoint_dir) out->checkpoints = checkpoint_bytes(n, &all, &largest);
    return EQAT_OK;
}
