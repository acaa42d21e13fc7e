#include "need_sizes.h"

#include <stdlib.h>
#include <string.h>

/* Of one block, or summed over blocks. The first stage of Block-AP is the largest: it has all that
 * is no expert. */
typedef struct block_size {
    double weights; /* in linears */
    double linear;  /* of the largest */
    double groups;
    double packed;        /* bytes of codes, scales F32 and zero points in memory */
    double stored;        /* bytes of the linears in a file */
    double stages;        /* that train one after another */
    double masters;       /* weights of the first stage */
    double master_groups; /* of those */
    double later;         /* weights of the other stages */
    double moments;       /* bytes of those of the inputs, each once, for error feedback */
    double dense;         /* width of the MLP that is none of an expert */
    double experts;       /* bytes of a token that backward keeps of them */
    double factor;        /* bytes of what it makes of the largest, and of its linear */
    int64_t measured;     /* number of the last input that is counted; -1: none is */
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

/* Number of the expert that it is of; -1: of none. */
static int64_t expert_of(const eqat_linear_info *l)
{
    static const char mark[] = ".experts.";
    const char *at = strstr(l->name, mark);
    return at ? atoll(at + strlen(mark)) : -1;
}

/* Number of the stage of Block-AP that trains it. */
static int64_t stage_of(const need *n, const eqat_linear_info *l)
{
    int64_t together = n->data ? n->block_ap->experts_at_a_time : 0, expert = expert_of(l);
    return together && expert > 0 ? expert / together : 0;
}

static void add_linear(const need *n, const eqat_linear_info *l, block_size *b)
{
    eqat_quantizer_options o = quantization(n, l);
    double weights = (double)l->out_features * (double)l->in_features;
    int64_t stage = stage_of(n, l);
    b->weights += weights;
    b->stages = larger(b->stages, (double)stage + 1);
    *(stage ? &b->later : &b->masters) += weights;
    b->linear = larger(b->linear, weights);
    if (!o.bits) {
        b->stored += 2 * weights;
        b->packed += n->data ? 4 * weights : 0; /* what has trained stays F32 */
        return;
    }
    double group = (double)(o.group_size > 0 ? o.group_size : (int32_t)l->in_features);
    double groups = weights / group;
    b->groups += groups;
    b->master_groups += stage ? 0 : groups;
    if (!stage && (o.init == EQAT_INIT_GPTQ || o.init == EQAT_INIT_DESCENT)) {
        double square = (double)l->in_features * (double)l->in_features;
        b->moments += l->input == b->measured ? 0 : 4 * square;
        b->measured = l->input;
        b->factor =
            larger(b->factor, 4 * square + 12 * weights + 20 * (double)l->out_features * group);
    }
    b->packed += weights * o.bits / 8 + groups * 5;
    b->stored += is_gguf(n)
        ? weights * gguf_bits(&o) / 8
        : weights * o.bits / 8 + groups * (2 + o.bits / 8.0) + 4 * (double)l->in_features;
}

/* What the sums are taken over. */
typedef struct shapes {
    const need *n;
    eqat_model_info m, teacher; /* teacher: when there is one */
    block_size all, largest;    /* blocks */
    double element;             /* bytes of an activation */
} shapes;

/* For each expert of a token its inputs, gate, up and their product, and its outputs in F32. */
static double experts_of(const shapes *s, const eqat_linear_info *l)
{
    double hidden = (double)s->m.hidden_size;
    double width = (double)l->out_features * (double)l->in_features / hidden;
    return (double)s->m.experts_per_token * ((hidden + 3 * width) * s->element + 4 * hidden);
}

static eqat_status block_of(const shapes *s, int64_t index, block_size *b)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    *b = (block_size){.measured = -1};
    for (int64_t i = 0; i < eqat_model_linear_count(s->n->model, index); i++) {
        eqat_status st = eqat_model_linear(s->n->model, index, i, &l);
        if (st != EQAT_OK) return st;
        add_linear(s->n, &l, b);
        if (expert_of(&l) >= 0) b->experts = experts_of(s, &l);
    }
    b->dense = b->experts > 0 ? 0 : (double)s->m.intermediate_size;
    return EQAT_OK;
}

static double smaller(double a, double b) { return a < b ? a : b; }

static double block_ap_rows(const need *n)
{
    return smaller((double)n->block_ap->batch_size, (double)(n->train + n->val)) *
        (double)n->data->seq_len;
}

/* Of a pass that trains nothing, which takes up to four steps' rows, 1024 at most. */
static double pass_rows(double step) { return larger(step, smaller(4 * step, 1024)); }

static double block_ap_pass_rows(const need *n)
{
    double all = (double)(n->train + n->val) * (double)n->data->seq_len;
    return smaller(pass_rows(block_ap_rows(n)), all);
}

static double e2e_rows(const need *n)
{
    return (double)n->e2e->micro_batch_size * (double)n->e2e_data->seq_len;
}

static double embedding(const shapes *s)
{
    return (double)s->m.vocab_size * (double)s->m.hidden_size * s->element;
}

/* Embedding and head. */
static double ends_of(const shapes *s, const eqat_model_info *m)
{
    double each = (double)m->vocab_size * (double)m->hidden_size * s->element;
    return (m->tied_embeddings ? 1 : 2) * each;
}

static bool has_logits(const need *n) { return n->block_ap->last_loss == EQAT_LAST_LOSS_LOGITS; }

/* Of a token in one block: two norms, q, k, v, attention, projection, residuals, gate, up and their
 * product. */
static double width_of(const eqat_model_info *m, double mlp)
{
    return 6.0 * (double)m->hidden_size + 2.0 * (double)((m->heads + m->kv_heads) * m->head_dim) +
        3.0 * mlp;
}

/* What backward keeps of one block. */
static double activations(const shapes *s, double rows)
{
    return rows * width_of(&s->m, s->largest.dense) * s->element;
}

/* With those of experts. */
static double kept(const shapes *s, double rows)
{
    return activations(s, rows) + rows * s->largest.experts;
}

/* What the pool keeps of tensors of experts, as many rows of which do not come again. */
static double pool(const shapes *s) { return s->largest.experts > 0 ? 16 << 20 : 0; }

/* Operands of products, packed anew. */
static double panels(const shapes *s, double rows)
{
    return smaller(rows * (double)(s->m.hidden_size + s->m.intermediate_size) * s->element, 32e6);
}

/* Of the largest stage, and dense what trains later. */
static double weights_bytes(const shapes *s)
{
    return 4 * s->largest.masters + s->element * s->largest.later;
}

/* At the start of a block: its weights, the second moments of its inputs, and the pass that takes
 * them or one linear's error feedback. */
static double block_ap_start(const shapes *s)
{
    return weights_bytes(s) + s->largest.moments +
        larger(activations(s, block_ap_pass_rows(s->n)), s->largest.factor);
}

/* The best state of a stage, which stands beside later epochs. */
static double best_bytes(const shapes *s)
{
    const eqat_block_ap_options *o = s->n->block_ap;
    bool stands = o->keep == EQAT_KEEP_BEST && o->epochs > 1 && s->n->val > 0;
    return stands ? 4 * s->largest.masters + 8 * s->largest.master_groups : 0;
}

/* Weights, moments and activations at the begin of backward, with gradients in their place at its
 * end; scales and zero points with theirs. */
static double block_ap_bytes(const shapes *s)
{
    double rows = block_ap_rows(s->n), each = 4 * s->largest.masters;
    /* Measured: the allocator keeps three quarters of what experts have freed. */
    double freed = 0.75 * rows * s->largest.experts + pool(s);
    double on_the_way = kept(s, rows) + activations(s, rows) + freed;
    double training = (has_logits(s->n) ? embedding(s) : 0) + weights_bytes(s) + 2 * each +
        larger(each, on_the_way) + 32 * s->largest.master_groups + best_bytes(s) + panels(s, rows);
    return larger(larger(training, block_ap_start(s)) + s->all.packed, embedding(s));
}

/* Embedding and head, streams of a step or of 4096 tokens, and one block. */
static double teacher_bytes(const shapes *s)
{
    const need *n = s->n;
    const eqat_model_info *m = &s->teacher;
    double token = (double)m->hidden_size * s->element, time = (double)n->e2e_data->seq_len;
    double streams = larger((double)n->e2e->batch_size * time, 4096) * token;
    return ends_of(s, m) + larger(e2e_rows(n) * token, smaller(streams, 256e6)) +
        (double)m->linear_parameters / (double)m->blocks * s->element;
}

/* Trained scales, and zero points where they are. */
static double trained_groups(const shapes *s)
{
    return (s->n->e2e->params == EQAT_E2E_SZ ? 2 : 1) * s->all.groups;
}

/* Their gradients, moments and copies. */
static double trained_bytes(const shapes *s)
{
    double judged = !s->n->e2e_val ? 0 : s->n->e2e->keep == EQAT_KEEP_BEST ? 8 : 4; /* copies */
    return (20 + judged) * trained_groups(s);
}

static double ends_and_teacher(const shapes *s)
{
    return ends_of(s, &s->m) + (s->n->e2e->teacher ? teacher_bytes(s) : 0);
}

/* The residual stream in front of every block, which backward computes it again from. */
static double inputs_bytes(const shapes *s)
{
    return (double)s->m.blocks * e2e_rows(s->n) * (double)s->m.hidden_size * s->element;
}

static double teacher_pass(const shapes *s)
{
    double rows = pass_rows(e2e_rows(s->n));
    if (!s->n->e2e->teacher) return 0;
    return rows * width_of(&s->teacher, (double)s->teacher.intermediate_size) * s->element;
}

static double e2e_bytes(const shapes *s)
{
    double rows = e2e_rows(s->n), all = s->n->e2e->keep_activations ? (double)s->m.blocks : 1;
    return s->all.packed + trained_bytes(s) + ends_and_teacher(s) + inputs_bytes(s) +
        larger(all * kept(s, rows) + activations(s, rows) + pool(s), teacher_pass(s)) +
        panels(s, rows);
}

/* Without training, the packed model grows beside a block at full precision. */
static double rtn_bytes(const shapes *s) { return 4 * s->largest.weights + s->all.packed; }

typedef double size_fn(const shapes *s);

/* Of those phases that there are. */
static need_phases phases(const shapes *s, size_fn *block_ap, size_fn *e2e)
{
    const need *n = s->n;
    return (need_phases){
        .block_ap = n->data ? block_ap(s)
            : n->quantizer  ? rtn_bytes(s)
                            : 0,
        .e2e = n->e2e_data ? e2e(s) : 0,
    };
}

/* ---- a device with memory of its own ---- */

/* Activations of a block, and the gradient of the widest. */
static double on_the_way_back(const shapes *s, double rows)
{
    return kept(s, rows) + rows * (double)s->m.intermediate_size * s->element;
}

/* What kernels keep: an operand as large as the largest linear, a chunk of its gradient or of
 * logits with theirs, and a workspace for products. */
static double scratch(const shapes *s, double rows, bool logits)
{
    double gradient = smaller(4 * s->largest.linear, 64 << 20);
    double chunk = logits ? smaller(6 * rows * (double)s->m.vocab_size, 256 << 20) : 0;
    return (32 << 20) + 2 * s->largest.linear + larger(gradient, chunk);
}

/* Gradients of weights come in chunks, and finished blocks wait on the host. */
static double block_ap_device(const shapes *s)
{
    double rows = block_ap_rows(s->n);
    bool logits = has_logits(s->n);
    double training = (logits ? embedding(s) : 0) + weights_bytes(s) + 8 * s->largest.masters +
        24 * s->largest.master_groups + on_the_way_back(s, rows);
    return larger(larger(training, block_ap_start(s)), embedding(s)) + scratch(s, rows, logits);
}

static double e2e_device(const shapes *s)
{
    const eqat_e2e_qp_options *o = s->n->e2e;
    double rows = e2e_rows(s->n), blocks = (double)s->m.blocks;
    double others = o->keep_activations ? blocks - 1 : 0;
    double here = o->host_state ? smaller(2 / blocks, 1) : 1; /* of the first and the last block */
    return s->all.packed + (o->host_state ? 4 * trained_groups(s) : trained_bytes(s)) +
        ends_and_teacher(s) + here * inputs_bytes(s) + others * kept(s, rows) +
        on_the_way_back(s, rows) + scratch(s, rows, true);
}

/* Finished blocks and the best state of the one in work; what host_state keeps off the device. */
static need_phases phases_beside(const shapes *s)
{
    const need *n = s->n;
    return (need_phases){
        .block_ap = n->data ? s->all.packed + 4 * s->largest.masters : 0,
        .e2e = n->e2e_data && n->e2e->host_state ? trained_bytes(s) + inputs_bytes(s) : 0,
    };
}

/* States of jobs: all blocks packed, one of them with its masters and moments; then scales and zero
 * points with theirs, and with copies of the last good and the best ones, beside the last state of
 * Block-AP. */
static double checkpoint_bytes(const shapes *s)
{
    const need *n = s->n;
    double blocks = s->all.packed + 12 * s->largest.masters + 24 * s->largest.master_groups;
    double each = n->e2e_data ? 16 + (n->e2e->keep == EQAT_KEEP_BEST ? 4 : 0) : 0;
    double scales = n->e2e_data ? each * trained_groups(s) : 0;
    if (!n->data) blocks = 0;
    return larger(2 * blocks, blocks + 2 * scales);
}

/* Of each the most: blocks need not be alike, and what is not quantized has no groups. */
static void take_largest(block_size *all, const block_size *b)
{
    all->weights = larger(all->weights, b->weights);
    all->linear = larger(all->linear, b->linear);
    all->stages = larger(all->stages, b->stages);
    all->masters = larger(all->masters, b->masters);
    all->master_groups = larger(all->master_groups, b->master_groups);
    all->later = larger(all->later, b->later);
    all->dense = larger(all->dense, b->dense);
    all->experts = larger(all->experts, b->experts);
    all->moments = larger(all->moments, b->moments);
    all->factor = larger(all->factor, b->factor);
}

static eqat_status add_blocks(shapes *s, need_sizes *out)
{
    for (int64_t i = 0; i < s->m.blocks; i++) {
        block_size b;
        eqat_status st = block_of(s, i, &b);
        if (st != EQAT_OK) return st;
        if (i == 0) out->first = b.weights;
        take_largest(&s->largest, &b);
        s->all.weights += b.weights;
        s->all.groups += b.groups;
        s->all.packed += b.packed;
        s->all.stored += b.stored;
    }
    return EQAT_OK;
}

eqat_status need_sizes_of(const need *n, need_sizes *out)
{
    shapes s = {.n = n,
                .m = {.struct_size = sizeof s.m},
                .teacher = {.struct_size = sizeof s.teacher},
                .element = n->model_options->compute_dtype == EQAT_F32 ? 4 : 2};
    *out = (need_sizes){0};
    eqat_status st = eqat_model_inspect(n->model, &s.m);
    if (st == EQAT_OK && n->e2e->teacher) st = eqat_model_inspect(n->e2e->teacher, &s.teacher);
    if (st == EQAT_OK) st = add_blocks(&s, out);
    if (st != EQAT_OK) return st;
    out->all = s.all.weights;
    out->stages = (int64_t)s.largest.stages;
    out->head = (double)s.m.vocab_size * (double)s.m.hidden_size;
    out->ends_in = (double)s.m.bytes - s.m.linear_bits / 8 * (double)s.m.linear_parameters;
    double wide = 2 * (double)(s.m.parameters - s.m.linear_parameters); /* F16 for GGUF's blocks */
    out->ends = is_gguf(n) ? out->ends_in : larger(out->ends_in, wide);
    out->out = s.all.stored + out->ends;
    if (n->data)
        out->streams = 2 * (double)(n->train + n->val) * (double)n->data->seq_len *
            (double)s.m.hidden_size * s.element;
    out->host = n->on_device ? phases_beside(&s) : phases(&s, block_ap_bytes, e2e_bytes);
    if (n->on_device) out->device = phases(&s, block_ap_device, e2e_device);
    if (n->checkpoint_dir) out->checkpoints = checkpoint_bytes(&s);
    return EQAT_OK;
}
