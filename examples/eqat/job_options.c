#include <string.h>

#include "job.h"
#include "rules.h"

#define MOST_SKIPPED 1e17 /* more than any text has */

const char *job_recipes[8];
const char *const job_methods[] = {"rtn", "block-ap", "efficientqat", NULL};
const char *const job_e2e_data_fields[] = {"train_size", "val_size", "seq_len", NULL};

/* The last value given, wherever it stands; NULL: none. */
static const char *value_given(int argc, char **argv, const char *flag)
{
    const char *value = NULL;
    size_t length = strlen(flag);
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], flag, length) != 0) continue;
        if (argv[i][length] == '=') value = argv[i] + length + 1;
        if (!argv[i][length] && i + 1 < argc) value = argv[i + 1];
    }
    return value;
}

/* The whole of a recipe; an unknown one leaves what there is, and the flags are refused. */
static void take_recipe(job *j, const char *recipe)
{
    for (size_t i = 0; i + 1 < sizeof job_recipes / sizeof *job_recipes; i++)
        if (!(job_recipes[i] = eqat_recipe_name(i))) break;
    j->recipe = recipe;
    eqat_recipe_take(NULL, recipe, "quantizer", &j->quantizer);
    eqat_recipe_take(NULL, recipe, "data", &j->data);
    eqat_recipe_take(NULL, recipe, "block_ap", &j->block_ap);
    eqat_recipe_take(NULL, recipe, "e2e_data", &j->e2e_data);
    eqat_recipe_take(NULL, recipe, "e2e_qp", &j->e2e);
}

void job_init(job *j, int argc, char **argv)
{
    *j = (job){.kept = {.folder = -1}};
    eqat_context_options_init(&j->t.context, sizeof j->t.context);
    eqat_model_options_init(&j->model, sizeof j->model);
    eqat_quantizer_options_init(&j->quantizer, sizeof j->quantizer);
    eqat_allocate_options_init(&j->allocate, sizeof j->allocate);
    eqat_data_options_init(&j->data, sizeof j->data);
    eqat_data_options_init(&j->e2e_data, sizeof j->e2e_data);
    eqat_block_ap_options_init(&j->block_ap, sizeof j->block_ap);
    eqat_e2e_qp_options_init(&j->e2e, sizeof j->e2e);
    eqat_save_options_init(&j->save, sizeof j->save);
    /* What a recipe says comes before all other flags. */
    const char *recipe = value_given(argc, argv, "--recipe");
    take_recipe(j, recipe ? recipe : JOB_RECIPE);
    j->bits_given = value_given(argc, argv, "--bits");
}

/* Where E2E-QP reads the text of Block-AP, it begins with what that leaves: of what blocks have
 * learned by heart, scales learn less. */
static int64_t skipped(const job *j)
{
    const eqat_data_options *d = &j->data;
    const double taken = (double)(d->train_size + d->val_size) * (double)d->seq_len;
    if (!j->calib_file) return d->skip_tokens;
    if (j->e2e_file && strcmp(j->e2e_file, j->calib_file)) return 0;
    if (!d->train_size || taken > MOST_SKIPPED) return d->skip_tokens;
    return d->skip_tokens + (d->train_size + d->val_size) * d->seq_len;
}

/* What a text is validated on is in no window of E2E-QP: the result is judged there. */
static int64_t held(const job *j)
{
    const eqat_data_options *d = &j->data;
    const double asked = (double)d->val_size * (double)d->seq_len;
    if (!j->calib_file || (j->e2e_file && strcmp(j->e2e_file, j->calib_file)))
        return d->held_tokens;
    if (asked > MOST_SKIPPED) return 0; /* more than there is: all has been taken */
    return d->val_size * d->seq_len + (d->train_size ? 0 : d->seq_len - 1);
}

/* The windows of E2E-QP are drawn like those of the calibration. */
void job_share_sampling(job *j)
{
    j->e2e_data.skip_tokens = skipped(j);
    j->e2e_data.held_tokens = held(j);
    j->e2e_data.sampling = j->data.sampling;
    j->e2e_data.shuffle = j->data.shuffle;
    j->e2e_data.text_key = j->data.text_key;
}

/* What would be ignored is told. */
static int unused_flag(const job *j, const char *flag, const char *expected)
{
    return flags_refuse("%.*s: found it with --method %s, expected %s", (int)strcspn(flag, "="),
                        flag, j->method_name, expected);
}

/* None is one, too: it overrides the recipe. */
void job_choose_teacher(job *j)
{
    const char *field, *value;
    bool source = j->quantizes && j->method == EFFICIENTQAT &&
        eqat_recipe_option(j->recipe, "run", 0, &field, &value) == EQAT_OK;
    if (!j->teacher_file && source) j->teacher_file = j->path;
    if (j->teacher_file && !strcmp(j->teacher_file, "none")) j->teacher_file = NULL;
}

int job_choose_method(job *j)
{
    const char *calib = j->calib_file ? "--calib" : j->calib_flag,
               *e2e = j->e2e_file ? "--e2e"
        : j->teacher_file         ? "--teacher"
                                  : j->e2e_flag;
    const char *name = j->method_name ? j->method_name : j->e2e_file ? "efficientqat" : "block-ap";
    j->method_name = name;
    while (strcmp(job_methods[j->method], name)) j->method++;
    if (j->method == RTN && calib) return unused_flag(j, calib, "block-ap or efficientqat");
    if (j->method != EFFICIENTQAT && e2e)
        return unused_flag(j, e2e, "efficientqat, or --e2e FILE without --method");
    if (j->method != RTN && !j->calib_file)
        return flags_refuse("--calib: expected a file of calibration text or tokens");
    if (j->method == RTN && j->allocate.bits_per_weight > 0)
        return unused_flag(j, "bits-per-weight", "block-ap or efficientqat");
    if (j->allocate.bits_per_weight > 0 && j->bits_given)
        return flags_refuse("--bits: found %.40s with --bits-per-weight, which chooses the bits of "
                            "all linears, expected one of the two",
                            j->bits_given);
    if (j->allocate.bits_per_weight > 0) return rules_check_skips(&j->rules);
    return -1;
}
