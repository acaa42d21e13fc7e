#include "job.h"

int command_e2e_qp(int argc, char **argv)
{
    static const char *const sampling_fields[] = {"sampling",    "shuffle",     "text_key",
                                                  "skip_tokens", "held_tokens", NULL};
    job j;
    job_init(&j, argc, argv);
    j.method = EFFICIENTQAT;
    const flag_own own[] = {
        OUT_FLAG(&j.out, "trained"),
        FORCE_FLAG(&j.out),
        {.name = "data",
         .value = "FILE",
         .help = "training data: .txt .jsonl .npy .u16 .u32; - for text on standard input",
         .text = &j.e2e_file},
        RECIPE_FLAG(&j),
        TEACHER_FLAG(&j, "none"),
        CHECKPOINT_FLAGS(&j.kept),
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Data", "data", "e2e-", &j.e2e_data, job_e2e_data_fields},
        {"Sampling", "data", "", &j.data, sampling_fields},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL},
        {NULL, "data", "", &j.e2e_data, job_e2e_data_fields},
        {NULL, "e2e_qp", "", &j.e2e, NULL},
        {"Saving", "save", "", &j.save, NULL},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {"e2e-qp QUANTIZED --out DIR --data FILE ...",
                          "Trains the scales of a quantized model end to end. The e2e- in a "
                          "flag may be left out.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return flags_refuse("e2e-qp: expected a quantized MODEL");
    if (!j.out.path || !*j.out.path)
        return flags_refuse("e2e-qp: --out: expected a folder for the result");
    if (!j.e2e_file)
        return flags_refuse("e2e-qp: --data: expected a file of training text or tokens");
    code = checkpoint_check(&j.kept);
    if (code >= 0) return code;
    code = job_open(&j, "e2e-qp", argc, argv);
    if (code) return code;
    return job_close(&j, job_make_result(&j, job_run_e2e));
}
