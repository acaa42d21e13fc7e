#include "data/data.h"
#include "train/e2e_qp.h"
#include "train/report.h"

/* Which samples the steps of E2E-QP have, and how many labels. */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

void eqi_e2e_qp_size(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    job->sequences = eqat_data_train_size(job->data);
    job->time = eqat_data_seq_len(job->data);
    job->steps_per_epoch = pieces(job->sequences, o->batch_size);
    job->micro_per_step = o->batch_size / o->micro_batch_size;
    job->together = least(o->micro_batch_size, job->sequences);
}

int64_t eqat_e2e_qp_steps(const eqat_e2e_qp *job)
{
    if (!job) return 0;
    return job->options.epochs * job->steps_per_epoch;
}

/* Sequences of an optimizer step, and of one of its micro-batches. */
static int64_t step_size(const eqat_e2e_qp *job, int64_t step)
{
    int64_t first = step % job->steps_per_epoch * job->options.batch_size;
    return least(job->options.batch_size, job->sequences - first);
}

static int64_t micro_size(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    int64_t size = job->options.micro_batch_size;
    return least(size, step_size(job, step) - micro * size);
}

int64_t eqat_e2e_qp_micro_steps(const eqat_e2e_qp *job, int64_t step)
{
    if (!job) return 0;
    if (step < 0 || step >= eqat_e2e_qp_steps(job)) return 0;
    return pieces(step_size(job, step), job->options.micro_batch_size);
}

/* Place of micro-batch `micro` in its epoch. */
static int64_t micro_first(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    return step % job->steps_per_epoch * job->options.batch_size +
        micro * job->options.micro_batch_size;
}

static int64_t sequence_at(const eqat_e2e_qp *job, int64_t step, int64_t place)
{
    return eqat_data_order(job->data, step / job->steps_per_epoch, place);
}

static eqi_group group_at(const eqat_e2e_qp *job, int64_t place, int64_t n, int64_t all)
{
    const int64_t at = place % job->together;
    return (eqi_group){.count = least(job->together, all - (place - at)), .at = at, .n = n};
}

eqi_group eqi_e2e_qp_group(eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    const int64_t place = micro_first(job, step, micro);
    const eqi_group g = group_at(job, place, micro_size(job, step, micro), job->sequences);
    for (int64_t i = 0; i < g.count; i++)
        job->numbers[i] = sequence_at(job, step, place - g.at + i);
    return g;
}

eqi_group eqi_e2e_qp_validation_group(eqat_e2e_qp *job, int64_t first, int64_t n)
{
    const eqi_group g = group_at(job, first, n, job->val);
    for (int64_t i = 0; i < g.count; i++) job->numbers[i] = first - g.at + i;
    return g;
}

int64_t eqi_e2e_qp_labels_of(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    int64_t n = micro_size(job, step, micro), first = micro_first(job, step, micro), sum = 0;
    if (!job->labels) return n * (job->time - 1);
    for (int64_t i = 0; i < n; i++) sum += job->labels[sequence_at(job, step, first + i)];
    return sum;
}

int64_t eqi_e2e_qp_labels_of_step(const eqat_e2e_qp *job, int64_t step)
{
    int64_t sum = 0, micros = eqat_e2e_qp_micro_steps(job, step);
    for (int64_t i = 0; i < micros; i++) sum += eqi_e2e_qp_labels_of(job, step, i);
    return sum;
}

/* Sequences with masked labels or several segments weigh what they have; a step must know the sum
 * before its first backward. */
static eqat_status count_labels(eqat_e2e_qp *job)
{
    const eqat_sample sample = {.struct_size = sizeof sample, .labels = job->input.arrays.labels};
    job->labels =
        eqi_alloc(job->ctx, (size_t)job->sequences * sizeof *job->labels, "the number of labels");
    if (!job->labels) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < job->sequences; i++) {
        EQI_RETURN_IF(eqi_check_cancel(job->ctx));
        EQI_RETURN_IF(eqat_data_sample(job->data, false, i, &sample));
        job->labels[i] = eqi_samples_labels(&job->input, 0);
    }
    return EQAT_OK;
}

/* The gradient callback averages over ranks as if all had equally many labels: a micro-batch must
 * weigh what it has of the mean number. */
static eqat_status share_labels(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    int64_t steps = eqat_e2e_qp_steps(job);
    job->shares = eqi_alloc(job->ctx, (size_t)(steps + 1) * sizeof *job->shares,
                            "the numbers of labels over all ranks");
    if (!job->shares) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < steps; i++) job->shares[i] = (double)eqi_e2e_qp_labels_of_step(job, i);
    job->shares[steps] = 1; /* becomes the number of ranks */
    EQI_RETURN_IF(
        eqi_report_reduce(job->ctx, o->reduce, o->reduce_user, job->shares, (size_t)steps + 1));
    for (int64_t i = 0; i < steps; i++) job->shares[i] /= job->shares[steps];
    return EQAT_OK;
}

eqat_status eqi_e2e_qp_make_samples(eqat_e2e_qp *job)
{
    int32_t marks = eqi_samples_marks(job->data);
    EQI_RETURN_IF(eqi_samples_create(job->ctx, &job->input, job->data,
                                     eqi_samples_input(job->data) | marks | EQAT_SAMPLE_LABELS,
                                     least(job->options.micro_batch_size, job->sequences)));
    job->numbers =
        eqi_alloc(job->ctx, (size_t)job->together * sizeof *job->numbers, "sample numbers");
    if (!job->numbers) return EQAT_OUT_OF_MEMORY;
    bool equal = !(eqat_data_fields(job->data) & (EQAT_SAMPLE_LABELS | EQAT_SAMPLE_SEGMENTS));
    if (equal) return EQAT_OK;
    EQI_RETURN_IF(count_labels(job));
    return job->options.reduce ? share_labels(job) : EQAT_OK;
}
