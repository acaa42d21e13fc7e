/* The jobs through C++ against the same calls in C, byte for byte. */
#include "modes.hpp"

#include <cmath>
#include <limits>

/* ---- the same in C ---- */

static void c(eqat_context *ctx, eqat_status status)
{
    ck_assert_msg(status == EQAT_OK, "%s", eqat_context_error(ctx));
}

static std::string by_c(const std::string &dir)
{
    eqat_context *ctx;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_model_options m;
    eqat_quantizer_options q;
    eqat_model_options_init(&m, sizeof m);
    m.compute_dtype = EQAT_F32;
    eqat_quantizer_options_init(&q, sizeof q);
    q.group_size = 32;
    eqat_data_options d = few_samples();
    eqat_block_ap_options b = fast_block_ap();
    eqat_e2e_qp_options e = fast_e2e_qp();
    std::vector<std::int32_t> ids = some_tokens();
    ck_assert_int_eq(eqat_context_create(&ctx, nullptr, nullptr, 0), EQAT_OK);
    c(ctx, eqat_model_open(ctx, &model, small_model().c_str(), &m));
    c(ctx, eqat_quantizer_create(ctx, &quantizer, &q));
    c(ctx, eqat_data_from_tokens(ctx, &data, ids.data(), ids.size(), 0, &d));
    c(ctx, eqat_block_ap_quantize(model, quantizer, data, &b));
    c(ctx, eqat_e2e_qp_train(model, data, &e));
    c(ctx, eqat_model_save(model, dir.c_str(), nullptr));
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return read_file(dir + "/model.safetensors");
}

START_TEST(one_call_jobs_give_the_bytes_of_c)
{
    scratch folder;
    setting s;
    FAILS(EQAT_INVALID_ARGUMENT, "no quantized linear",
          eqat::e2e_qp::check(s.model, nullptr, s.data, fast_e2e_qp()));
    MUST(eqat::e2e_qp::check(s.model, &s.quantizer, s.data, fast_e2e_qp()));
    MUST(eqat::block_ap::quantize(s.model, s.quantizer, s.data, fast_block_ap()));
    MUST(eqat::e2e_qp::train(s.model, s.data, fast_e2e_qp()));
    MUST(s.model.check_save());
    MUST(s.model.check_save(&s.quantizer));
    MUST(s.model.save(folder / "cpp"));
    eqat::save_options o;
    o.format = "gptq_v3";
    FAILS(EQAT_UNSUPPORTED, "format: found \"gptq_v3\"", s.model.check_save(nullptr, o));
    FAILS(EQAT_UNSUPPORTED, "format: found \"gptq_v3\"", s.model.save(folder / "v3", o));
    ck_assert(read_file(folder / "cpp/model.safetensors") == by_c(folder / "c"));
}
END_TEST

/* ---- drivers made of the public steps ---- */

START_TEST(bits_by_sensitivity)
{
    setting s;
    std::int64_t told = 0;
    eqat::allocate_options o(3);
    o.on_progress = [&](const eqat_progress &) { return ++told, eqat::proceed::yes; };
    FAILS(EQAT_INVALID_ARGUMENT, "bits_per_weight: found 2",
          eqat::allocate(s.quantizer, s.model, s.data, eqat::allocate_options(2)));
    MUST(eqat::allocate(s.quantizer, s.model, s.data, o));
    int most = 0;
    for (const auto &l : MUST(s.model.linears(0)))
        most = std::max(most, s.quantizer.lookup(l.name)->bits);
    ck_assert_int_gt(most, 2);
    ck_assert_int_gt(told, 0);
}
END_TEST

static void train_block(eqat::block_ap &job, std::int64_t epochs)
{
    MUST(job.begin());
    for (std::int64_t e = 0; e < epochs; e++)
        for (std::int64_t i = 0; i < job.steps(); i++) {
            double loss = -1;
            MUST(job.step(e, i, &loss));
            ck_assert_double_gt(loss, 0);
        }
    ck_assert_double_gt(MUST(job.validate()), 0);
    ck_assert(job.optimizer().has_value());
    ck_assert_int_eq(job.optimizer()->steps(), epochs * job.steps());
    ck_assert(job.parameter("self_attn.q_proj.weight").has_value());
    ck_assert(!job.parameter("nothing").has_value());
    MUST(job.finish());
}

static void train_end_to_end(eqat::e2e_qp &job)
{
    for (std::int64_t i = 0; i < job.steps(); i++) {
        for (std::int64_t m = 0; m < job.micro_steps(i); m++) MUST(job.accumulate(i, m));
        MUST(job.step());
        ck_assert_double_gt(MUST(job.optimizer()->grad_norm()), 0);
    }
    MUST(job.finish());
    ck_assert(!job.optimizer().has_value());
}

START_TEST(drivers_give_the_same_bytes)
{
    scratch folder;
    setting s;
    auto blocks = MUST(eqat::block_ap::create(s.model, s.quantizer, s.data, fast_block_ap()));
    train_block(blocks, fast_block_ap().epochs);
    MUST(blocks.begin());
    blocks.abandon();
    train_block(blocks, fast_block_ap().epochs);
    ck_assert_int_eq(blocks.block(), 2);
    auto steps = MUST(eqat::e2e_qp::create(s.model, s.data, fast_e2e_qp()));
    train_end_to_end(steps);
    MUST(s.model.save(folder / "cpp"));
    ck_assert(read_file(folder / "cpp/model.safetensors") == by_c(folder / "c"));
}
END_TEST

START_TEST(a_pass_and_an_update_of_ones_own)
{
    setting s;
    auto job = MUST(eqat::block_ap::create(s.model, s.quantizer, s.data, fast_block_ap()));
    MUST(job.begin());
    auto tape = MUST(eqat::tape::create(s.context));
    auto passed = MUST(job.forward(tape, 0, 0));
    auto loss = MUST(tape.mse(passed.y, passed.target));
    double expected = MUST(loss.item<float>()), found = -1;
    auto adamw = job.optimizer();
    MUST(adamw->backward(tape, loss));
    ck_assert_int_eq(adamw->steps(), 1);
    job.abandon();
    MUST(job.begin());
    MUST(job.step(0, 0, &found));
    ck_assert_double_eq(found, expected);
}
END_TEST

START_TEST(state_goes_through_a_file)
{
    scratch folder;
    setting s, other;
    auto job = MUST(eqat::block_ap::create(s.model, s.quantizer, s.data, fast_block_ap()));
    train_block(job, 1);
    MUST(job.save(folder / "state"));
    auto next =
        MUST(eqat::block_ap::create(other.model, other.quantizer, other.data, fast_block_ap()));
    MUST(next.load(folder / "state"));
    ck_assert_int_eq(next.block(), 1);
    MUST(next.run());
    ck_assert_double_gt(MUST(next.epoch(1, 0)).train_loss, 0);
    FAILS(EQAT_NOT_FOUND, "", next.epoch(7, 0));
    FAILS(EQAT_NOT_FOUND, "nowhere", next.save(folder / "nowhere/state"));
    auto steps = MUST(eqat::e2e_qp::create(other.model, other.data, fast_e2e_qp()));
    MUST(steps.accumulate(0, 0));
    MUST(steps.save(folder / "steps"));
    MUST(steps.load(folder / "steps"));
    MUST(steps.run());
    ck_assert_double_gt(steps.loss(0), 0);
    ck_assert(std::isnan(steps.loss(1000)));
}
END_TEST

/* ---- callbacks ---- */

START_TEST(callbacks_take_part)
{
    scratch folder;
    setting s;
    int steps = 0, passes = 0, losses = 0, gradients = 0, sums = 0, end_to_end = 0, divergences = 0,
        parts = 0, linears = 0;
    std::int64_t last = 0;
    auto o = fast_block_ap();
    o.on_progress = [&](const eqat_progress &p) {
        ck_assert_str_eq(p.phase, "block-ap");
        steps++;
        return eqat::proceed::yes;
    };
    o.on_between = [&](const eqat_progress &p) {
        ck_assert_int_gt(p.batches, 0);
        passes++;
        return eqat::proceed::yes;
    };
    o.on_loss = [&](eqat::tape &tape, const eqat::tensor &y, const eqat::tensor &target) {
        losses++;
        return tape.mse(y, target);
    };
    o.on_gradient = [&](const std::vector<eqat::tensor> &parameters) {
        gradients++;
        for (const eqat::tensor &p : parameters) ck_assert(p.grad().has_value());
        return eqat::outcome<void>();
    };
    o.on_reduce = [&](eqat::span<double> values) {
        sums += static_cast<int>(values.size());
        return eqat::outcome<void>();
    };
    MUST(eqat::block_ap::quantize(s.model, s.quantizer, s.data, o));
    ck_assert_int_eq(steps, 2 * 2 * 3);
    ck_assert_int_gt(passes, steps);
    ck_assert_int_eq(gradients, steps);
    ck_assert_int_gt(losses, steps); /* validation too */
    ck_assert_int_gt(sums, 0);
    auto e = fast_e2e_qp();
    e.on_progress = [&](const eqat_progress &) { return ++end_to_end, eqat::proceed::yes; };
    e.on_loss = [&](eqat::tape &tape, const eqat::tensor &logits, const eqat::batch &batch) {
        ck_assert_uint_eq(batch.ids.size(), 16);
        ck_assert_int_lt(batch.labels[15], 0);
        auto target = tape.scale(logits, 0.5);
        divergences++;
        return tape.kl_divergence(logits, MUST(std::move(target)));
    };
    MUST(eqat::e2e_qp::train(s.model, s.data, e));
    ck_assert_int_eq(end_to_end, 3);
    ck_assert_int_eq(divergences, 2 + 6 + 2); /* validation too, of the start and of the end */
    eqat::save_options saving;
    saving.on_progress = [&](const eqat_progress &p) {
        ck_assert_str_eq(p.phase, "save");
        return ++parts == p.steps + 1 ? eqat::proceed::no : eqat::proceed::yes;
    };
    FAILS(EQAT_CANCELLED, "progress", s.model.save(folder / "told", saving));
    setting fresh;
    eqat::rtn_options rounding;
    rounding.on_progress = [&](const eqat_progress &p) {
        ck_assert_str_eq(p.phase, "rtn");
        linears += p.step < p.steps;
        return eqat::proceed::yes;
    };
    MUST(fresh.model.quantize_rtn(fresh.quantizer, rounding));
    ck_assert_int_eq(linears, 2 * 7);
    eqat::eval_options v;
    v.on_progress = [&](const eqat_progress &p) {
        last = p.step;
        ck_assert_int_le(p.step, p.steps);
        return eqat::proceed::yes;
    };
    auto ppl = MUST(eqat::perplexity(s.model, s.data, v));
    ck_assert_int_gt(last, 0);
    ck_assert_int_eq(ppl.windows, 6);
    ck_assert_double_eq_tol(ppl.perplexity, std::exp(ppl.nll / static_cast<double>(ppl.tokens)),
                            1e-9 * ppl.perplexity);
}
END_TEST

START_TEST(progress_cancels)
{
    setting s;
    auto o = fast_block_ap();
    int calls = 0;
    o.on_progress = [&](const eqat_progress &) {
        return ++calls == 8 ? eqat::proceed::no : eqat::proceed::yes;
    };
    auto job = MUST(eqat::block_ap::create(s.model, s.quantizer, s.data, o));
    FAILS(EQAT_CANCELLED, "", job.run());
    ck_assert_int_eq(job.block(), 1);
    MUST(job.run());
    s.context.cancel();
    FAILS(EQAT_CANCELLED, "cancelled", eqat::perplexity(s.model, s.data));
    s.context.cancel();
    s.context.reset_cancel();
    MUST(eqat::perplexity(s.model, s.data));
}
END_TEST

START_TEST(what_callbacks_report_comes_out)
{
    setting s;
    auto o = fast_block_ap();
    o.on_loss = [](eqat::tape &, const eqat::tensor &,
                   const eqat::tensor &) -> eqat::outcome<eqat::tensor> {
        BREAK("a loss of mine");
    };
    FAILS(EQAT_FORMAT, "a loss of mine", eqat::block_ap::quantize(s.model, s.quantizer, s.data, o));
    o = fast_block_ap();
    o.on_gradient = [](const std::vector<eqat::tensor> &) -> eqat::outcome<void> {
        BREAK("the network is down");
    };
    FAILS(EQAT_FORMAT, "network", eqat::block_ap::quantize(s.model, s.quantizer, s.data, o));
    o = fast_block_ap();
    o.on_reduce = [](eqat::span<double>) -> eqat::outcome<void> { BREAK("no sum"); };
    FAILS(EQAT_FORMAT, "no sum", eqat::block_ap::quantize(s.model, s.quantizer, s.data, o));
    /* The library's own failures are told as before. */
    FAILS(EQAT_NOT_FOUND, "nowhere", eqat::model::open(s.context, "nowhere"));
    MUST(eqat::block_ap::quantize(s.model, s.quantizer, s.data, fast_block_ap()));
}
END_TEST

#ifndef EQAT_NO_EXCEPTIONS
struct surprise {
    int number;
};

START_TEST(any_exception_crosses_the_call)
{
    setting s;
    auto o = fast_block_ap();
    int caught = 0;
    o.on_progress = [](const eqat_progress &p) -> eqat::proceed {
        if (p.step == 3) throw surprise{42};
        return eqat::proceed::yes;
    };
    try {
        eqat::block_ap::quantize(s.model, s.quantizer, s.data, o);
    } catch (const surprise &e) {
        caught = e.number;
    }
    ck_assert_int_eq(caught, 42);
    ck_assert_int_eq(MUST(s.model.info()).quantized, 0);
    auto r = eqat::attempt([&] { return eqat::model::open(s.context, "nowhere"); });
    ck_assert(!r);
    ck_assert_int_eq(r.error().status(), EQAT_NOT_FOUND);
    ck_assert(eqat::attempt([&] { return eqat::model::open(s.context, small_model()); }));
    ck_assert(eqat::attempt([&] { s.model.quantize_rtn(s.quantizer); }));
}
END_TEST
#endif

/* ---- lifetimes ---- */

/* Its fill is needed as long as the job, though the data object goes. */
static eqat::block_ap job_on_records(setting &s, int *calls)
{
    auto ids = some_tokens(16);
    auto fill = [=](bool, std::int64_t index, const eqat::record &r) -> eqat::outcome<void> {
        ++*calls;
        ck_assert_uint_eq(r.ids.size(), 16);
        ck_assert(r.labels.empty());
        for (std::size_t t = 0; t < 16; t++)
            r.ids[t] = (ids[t] + static_cast<std::int32_t>(index)) % 96;
        return eqat::outcome<void>();
    };
    auto data = MUST(eqat::data::from_records(s.context, fill, EQAT_SAMPLE_IDS, few_samples(), 96));
    return MUST(eqat::block_ap::create(s.model, s.quantizer, data, fast_block_ap()));
}

START_TEST(handles_go_in_any_order)
{
    auto s = std::make_unique<setting>();
    int calls = 0;
    auto job = job_on_records(*s, &calls);
    auto model = std::move(s->model);
    auto logits = MUST(model.forward({some_tokens(8)}));
    s.reset(); /* context, quantizer, data */
    MUST(job.run());
    ck_assert_int_gt(calls, 0);
    ck_assert_int_eq(MUST(model.info()).quantized, 1);
    ck_assert_int_eq(logits.size(2), 96);
    MUST(logits.fill(1));
}
END_TEST

START_TEST(what_was_moved_from_fails)
{
    setting s;
    auto model = std::move(s.model);
    ck_assert(!s.model);
    FAILS(EQAT_INVALID_ARGUMENT, "moved from", s.model.quantize_rtn(s.quantizer));
    FAILS(EQAT_INVALID_ARGUMENT, "moved from", s.model.forward({some_tokens(8)}));
    auto context = std::move(s.context);
    FAILS(EQAT_INVALID_ARGUMENT, "moved from", eqat::model::open(s.context, small_model()));
    ck_assert_ptr_null(s.context.get());
    MUST(model.quantize_rtn(s.quantizer));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, one_call_jobs_give_the_bytes_of_c);
    tcase_add_test(tc, bits_by_sensitivity);
    tcase_add_test(tc, drivers_give_the_same_bytes);
    tcase_add_test(tc, a_pass_and_an_update_of_ones_own);
    tcase_add_test(tc, state_goes_through_a_file);
    tcase_add_test(tc, callbacks_take_part);
    tcase_add_test(tc, progress_cancels);
    tcase_add_test(tc, what_callbacks_report_comes_out);
#ifndef EQAT_NO_EXCEPTIONS
    tcase_add_test(tc, any_exception_crosses_the_call);
#endif
    tcase_add_test(tc, handles_go_in_any_order);
    tcase_add_test(tc, what_was_moved_from_fails);
    return run_case("C++ jobs", tc, CK_NOFORK);
}
