#include "job.h"
#include "need.h"

eqat_status job_check_need(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                           const eqat_data *data)
{
    need n = {.model = model,
              .quantizer = quantizer,
              .model_options = &j->model,
              .block_ap = &j->block_ap,
              .e2e = &j->e2e,
              .checkpoint_dir = j->kept.dir,
              .out = j->out.path,
              .format = j->save.format,
              .keep_ends = j->keep_ends,
              .on_device = tool_has_device_memory(&j->t)};
    if (quantizer && data) {
        n.data = &j->data;
        n.train = eqat_data_train_size(data);
        n.val = eqat_data_val_size(data);
    }
    if (n.data && !j->judge.off) n.judged = judge_windows(n.train, j->block_ap.epochs, n.val);
    if (j->method == EFFICIENTQAT) n.e2e_data = &j->e2e_data;
    n.stages = j->quantizes && j->method == EFFICIENTQAT;
    if (!quantizer) n.e2e_train = eqat_data_train_size(data);
    n.e2e_val = j->e2e_data.val_size;
    return need_check(&j->t, &n);
}
