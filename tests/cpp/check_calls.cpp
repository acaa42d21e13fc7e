/* Single calls through C++ against the same call in C. */
#include "modes.hpp"

#include <array>
#include <cmath>
#include <thread>

/* ---- tensors ---- */

START_TEST(values_go_in_and_out)
{
    auto context = MUST(eqat::context::create());
    std::vector<float> values = {1, 2, 3, 4, 5, 6};
    auto t = MUST(eqat::tensor::from(context, {2, 3}, values));
    ck_assert(t.shape() == (std::vector<std::int64_t>{2, 3}));
    ck_assert_int_eq(t.dtype(), EQAT_F32);
    ck_assert_int_eq(t.ndim(), 2);
    ck_assert_int_eq(t.stride(0), 3);
    ck_assert(MUST(t.read<float>()) == values);
    float there[6];
    MUST(t.read_into<float>(there));
    ck_assert_double_eq(there[5], 6);
    MUST(t.data<float>())[1] = 20;
    auto row = MUST(MUST(t.slice(0, 0, 1)).reshape({3}));
    ck_assert(MUST(row.read<float>()) == (std::vector<float>{1, 20, 3}));
    MUST(t.write(std::array<float, 6>{7, 7, 7, 7, 7, 8}));
    auto shared = t.share();
    t = MUST(eqat::tensor::zeros(context, EQAT_BF16, {2, 3}));
    MUST(t.copy_from(shared));
    ck_assert_uint_eq(MUST(t.read<std::uint16_t>())[5], 0x4100);
    ck_assert_int_eq(
        MUST(MUST(eqat::tensor::from(context, {1}, std::array<int, 1>{-5})).item<int>()), -5);
    FAILS(EQAT_INVALID_ARGUMENT, "found bf16", t.read<float>());
    FAILS(EQAT_INVALID_ARGUMENT, "found 6 values, expected 4",
          eqat::tensor::from(context, {2, 2}, values));
    FAILS(EQAT_INVALID_ARGUMENT, "", shared.item<float>());
    ck_assert_uint_eq(eqat::dtype_size(EQAT_BF16), 2);
    ck_assert(eqat::dtype_name(EQAT_U8) == "u8");
}
END_TEST

START_TEST(memory_of_the_callers)
{
    auto context = MUST(eqat::context::create());
    float memory[6] = {1, 2, 3, 4, 5, 6};
    int released = 0;
    {
        auto t =
            MUST(eqat::tensor::wrap<float>(context, {3, 2}, memory, [&] { released++; }, {1, 3}));
        auto view = MUST(t.slice(0, 1, 1));
        t = MUST(eqat::tensor::zeros(context, EQAT_F32, {1}));
        ck_assert_int_eq(released, 0);
        ck_assert_ptr_eq(eqat_tensor_data(view.get()), memory + 1);
    }
    ck_assert_int_eq(released, 1);
    FAILS(EQAT_INVALID_ARGUMENT, "",
          eqat::tensor::wrap<float>(context, {7}, memory, [&] { released++; }));
    FAILS(EQAT_INVALID_ARGUMENT, "stride",
          eqat::tensor::wrap<float>(context, {3, 2}, memory, nullptr, {1}));
    ck_assert_int_eq(released, 1);
}
END_TEST

/* ---- ops: the arguments in their places ---- */

struct ops {
    eqat::context context = MUST(eqat::context::create());
    eqat::tape tape = MUST(eqat::tape::create(context));
    eqat::quantizer quantizer = MUST(eqat::quantizer::create(context, small()));
    std::uint64_t state = 1;

    static eqat::quantizer_options small()
    {
        eqat::quantizer_options o;
        o.group_size = 16;
        return o;
    }
    eqat::tensor floats(std::vector<std::int64_t> shape, float least = -1)
    {
        std::int64_t n = 1;
        for (std::int64_t s : shape) n *= s;
        std::vector<float> v(static_cast<std::size_t>(n));
        for (float &x : v) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            x = least +
                static_cast<float>(state >> 40) / static_cast<float>(1 << 23) * (1 - least) / 2;
        }
        return MUST(eqat::tensor::from(context, shape, v));
    }
    eqat::tensor ints(std::vector<std::int64_t> shape, std::vector<std::int32_t> v)
    {
        return MUST(eqat::tensor::from(context, shape, v));
    }
};

static void check_same(const eqat::tensor &cpp, eqat_status status, eqat_tensor *c)
{
    ck_assert_int_eq(status, EQAT_OK);
    ck_assert_int_eq(cpp.dtype(), eqat_tensor_dtype(c));
    ck_assert_int_eq(cpp.count(), eqat_tensor_count(c));
    std::size_t bytes = static_cast<std::size_t>(cpp.count()) * eqat_dtype_size(cpp.dtype());
    ck_assert_mem_eq(eqat_tensor_data(cpp.get()), eqat_tensor_data(c), bytes);
    eqat_tensor_free(c);
}

#define SAME(cpp, c_call)               \
    do {                                \
        eqat_tensor *out = nullptr;     \
        auto mine = MUST(cpp);          \
        eqat_status status_ = (c_call); \
        check_same(mine, status_, out); \
    } while (0)

START_TEST(linears)
{
    ops o;
    auto x = o.floats({3, 32}), w = o.floats({4, 32}), bias = o.floats({4});
    auto start = MUST(o.quantizer.init(w, true));
    auto packed = MUST(o.quantizer.quantize(w));
    eqat_tape *t = o.tape.get();
    eqat_quantizer *q = o.quantizer.get();
    SAME(o.tape.linear(x, w, &bias), eqat_op_linear(t, x.get(), w.get(), bias.get(), &out));
    SAME(o.tape.fakequant_linear(x, w, start.s, start.z, o.quantizer, &bias),
         eqat_op_fakequant_linear(t, x.get(), w.get(), start.s.get(), start.z.get(), bias.get(), q,
                                  &out));
    SAME(o.tape.packed_linear(x, packed.codes, packed.s, packed.z),
         eqat_op_packed_linear(t, x.get(), packed.codes.get(), packed.s.get(), packed.z.get(),
                               nullptr, &out));
    SAME(o.tape.fakequant(w, start.s, start.z, o.quantizer, EQAT_BF16),
         eqat_op_fakequant(t, w.get(), start.s.get(), start.z.get(), q, EQAT_BF16, &out));
    SAME(o.quantizer.pack(w, packed.s, packed.z),
         eqat_quantizer_pack(q, w.get(), packed.s.get(), packed.z.get(), &out));
    SAME(o.quantizer.dequantize(packed.codes, packed.s, packed.z),
         eqat_quantizer_dequantize(q, packed.codes.get(), packed.s.get(), packed.z.get(), EQAT_F32,
                                   &out));
    auto frozen = MUST(o.quantizer.freeze(w, start.s, start.z));
    ck_assert(MUST(frozen.codes.read<std::uint32_t>()) == MUST(packed.codes.read<std::uint32_t>()));
    ck_assert(MUST(frozen.z.read<std::uint8_t>()) == MUST(packed.z.read<std::uint8_t>()));
    FAILS(EQAT_INVALID_ARGUMENT, "linear", o.tape.linear(x, bias));
}
END_TEST

START_TEST(ops_of_a_block)
{
    ops o;
    eqat_tape *t = o.tape.get();
    auto x = o.floats({1, 4, 2, 8}), k = o.floats({1, 4, 1, 8}), v = o.floats({1, 4, 1, 8});
    auto cos = o.floats({4, 4}), sin = o.floats({4, 4}), gain = o.floats({8});
    auto segments = o.ints({1, 4}, {0, 0, 1, 1}), positions = o.ints({1, 4}, {3, 2, 1, 0});
    eqat::attention_options a;
    a.window = 2;
    SAME(o.tape.rmsnorm(x, gain, 1e-5, 1), eqat_op_rmsnorm(t, x.get(), gain.get(), 1e-5, 1, &out));
    SAME(o.tape.rope(x, cos, sin, &positions),
         eqat_op_rope(t, x.get(), cos.get(), sin.get(), positions.get(), &out));
    SAME(o.tape.attention(x, k, v, a, &segments),
         eqat_op_attention(t, x.get(), k.get(), v.get(), segments.get(), &a, &out));
    SAME(o.tape.gated(k, v, EQAT_GELU_TANH),
         eqat_op_gated(t, k.get(), v.get(), EQAT_GELU_TANH, &out));
    SAME(o.tape.add(k, v), eqat_op_add(t, k.get(), v.get(), &out));
    SAME(o.tape.mul(k, v), eqat_op_mul(t, k.get(), v.get(), &out));
    SAME(o.tape.scale(k, 3), eqat_op_scale(t, k.get(), 3, &out));
    SAME(o.tape.cast(k, EQAT_BF16), eqat_op_cast(t, k.get(), EQAT_BF16, &out));
    SAME(o.tape.mse(k, v), eqat_op_mse(t, k.get(), v.get(), &out));
    ck_assert(MUST(o.tape.reshape(x, {8, 8})).shape() == (std::vector<std::int64_t>{8, 8}));
    ck_assert(MUST(o.tape.transpose(x, 1, 2)).shape() == (std::vector<std::int64_t>{1, 2, 4, 8}));
    ck_assert_ptr_eq(eqat_tensor_data(MUST(o.tape.slice(x, 1, 2, 1)).get()),
                     MUST(x.data<float>()).data() + 2 * 16);
}
END_TEST

START_TEST(ops_on_rows)
{
    ops o;
    eqat_tape *t = o.tape.get();
    auto table = o.floats({6, 4}), h = o.floats({3, 4}), logits = o.floats({3, 4});
    auto ids = o.ints({3}, {5, 0, 2}), rows = o.ints({3}, {2, 1, 0}),
         slots = o.ints({3}, {1, 0, 1});
    SAME(o.tape.embedding(ids, table),
         eqat_op_embedding(t, ids.get(), table.get(), EQAT_F32, &out));
    SAME(o.tape.gather_rows(h, rows), eqat_op_gather_rows(t, h.get(), rows.get(), &out));
    auto masked = o.ints({3}, {1, -1, 0});
    SAME(o.tape.kl_divergence(h, logits, &masked),
         eqat_op_kl_divergence(t, h.get(), logits.get(), masked.get(), &out));
    auto mine = MUST(o.tape.linear_cross_entropy(h, table, ids));
    eqat_tensor *loss = nullptr, *count = nullptr;
    eqat_status status =
        eqat_op_linear_cross_entropy(t, h.get(), table.get(), ids.get(), &loss, &count);
    check_same(mine.loss, status, loss);
    check_same(mine.count, status, count);
    auto routed = MUST(o.tape.route(logits, 2, true));
    eqat_tensor *weights = nullptr, *index = nullptr;
    status = eqat_op_route(t, logits.get(), 2, true, &weights, &index);
    check_same(routed.weights, status, weights);
    check_same(routed.index, status, index);
    auto sum = MUST(eqat::tensor::zeros(o.context, EQAT_F32, {3, 4}));
    eqat_tensor *c_sum = nullptr;
    std::int64_t shape[] = {3, 4};
    ck_assert_int_eq(eqat_tensor_create(o.context.get(), &c_sum, EQAT_F32, 2, shape, nullptr), 0);
    for (int twice = 0; twice < 2; twice++) {
        MUST(o.tape.scatter_rows(sum, h, routed.weights, rows, slots));
        status =
            eqat_op_scatter_rows(t, &c_sum, h.get(), routed.weights.get(), rows.get(), slots.get());
    }
    check_same(sum, status, c_sum);
    FAILS(EQAT_INVALID_ARGUMENT, "", o.tape.scatter_rows(sum, table, routed.weights, rows, slots));
    ck_assert_int_eq(sum.count(), 12);
}
END_TEST

/* ---- gradients ---- */

static std::vector<float> gradient_of_cube(ops &o, eqat::tape::backward_fn rule)
{
    auto x = MUST(eqat::tensor::from(o.context, {3}, std::vector<float>{1, 2, 3}));
    MUST(x.set_requires_grad(true));
    ck_assert(x.requires_grad() && !x.grad());
    auto values = MUST(x.read<float>());
    for (float &v : values) v = v * v * v;
    auto y = MUST(eqat::tensor::from(o.context, {3}, values));
    MUST(o.tape.custom("cube", {&x}, y, std::move(rule)));
    MUST(o.tape.backward_from(
        y, MUST(eqat::tensor::from(o.context, {3}, std::vector<float>{1, 1, 1}))));
    auto grad = MUST(x.grad()->read<float>());
    x.zero_grad();
    ck_assert(!x.grad());
    return grad;
}

START_TEST(an_op_of_ones_own)
{
    ops o;
    auto witness = std::make_shared<int>();
    auto rule = [&o, witness](eqat::tape &tape, const eqat::tensor &g,
                              const std::vector<eqat::tensor> &in) -> eqat::outcome<void> {
        auto x = MUST(in[0].read<float>()), dy = MUST(g.read<float>());
        for (std::size_t i = 0; i < x.size(); i++) dy[i] *= 3 * x[i] * x[i];
        return tape.add_grad(in[0], MUST(eqat::tensor::from(o.context, {3}, dy)));
    };
    ck_assert(gradient_of_cube(o, rule) == (std::vector<float>{3, 12, 27}));
    ck_assert_int_eq(witness.use_count(), 2); /* this one and the lambda's: the tape let go */
    auto x = o.floats({3}), y = o.floats({3});
    MUST(x.set_requires_grad(true));
    MUST(o.tape.custom("broken", {&x}, y,
                       [](eqat::tape &, const eqat::tensor &, const std::vector<eqat::tensor> &)
                           -> eqat::outcome<void> { BREAK("no rule"); }));
    FAILS(EQAT_FORMAT, "no rule", o.tape.backward_from(y, x));
}
END_TEST

START_TEST(a_segment_runs_again)
{
    ops o;
    int runs = 0;
    auto x = o.floats({2, 4}), w = o.floats({4, 4});
    MUST(w.set_requires_grad(true));
    auto twice = [&](eqat::tape &tape, const std::vector<eqat::tensor> &in) {
        runs++;
        return tape.linear(in[0], w);
    };
    auto y = MUST(o.tape.checkpoint(twice, {&x}));
    auto loss = MUST(o.tape.mse(y, MUST(eqat::tensor::zeros(o.context, EQAT_F32, {2, 4}))));
    MUST(o.tape.backward(loss));
    ck_assert_int_eq(runs, 2);
    auto again = MUST(w.grad()->read<float>());
    w.zero_grad();
    y = MUST(o.tape.linear(x, w));
    loss = MUST(o.tape.mse(y, MUST(eqat::tensor::zeros(o.context, EQAT_F32, {2, 4}))));
    MUST(o.tape.backward(loss, 1));
    ck_assert(MUST(w.grad()->read<float>()) == again);
    FAILS(EQAT_FORMAT, "broken",
          o.tape.checkpoint([](eqat::tape &, const std::vector<eqat::tensor> &)
                                -> eqat::outcome<eqat::tensor> { BREAK("broken"); },
                            {&x}));
    o.tape.set_recording(false);
    o.tape.clear();
}
END_TEST

START_TEST(an_optimizer_steps)
{
    ops o;
    eqat::optimizer_options options;
    options.total_steps = 10;
    auto adamw = MUST(eqat::optimizer::create(o.context, options));
    auto w = MUST(eqat::tensor::from(o.context, {1}, std::vector<float>{1}));
    MUST(w.set_requires_grad(true));
    ck_assert_int_eq(MUST(adamw.add_group(0.1)), 0);
    ck_assert_int_eq(MUST(adamw.add_group(0.5)), 1);
    MUST(adamw.add(1, w));
    int called = 0;
    adamw.on_gradient([&](const std::vector<eqat::tensor> &p) {
        called += static_cast<int>(p.size());
        return eqat::outcome<void>();
    });
    auto loss = MUST(o.tape.mse(w, MUST(eqat::tensor::zeros(o.context, EQAT_F32, {1}))));
    MUST(o.tape.backward(loss));
    MUST(adamw.step());
    ck_assert_int_eq(called, 1);
    ck_assert_float_eq_tol(MUST(w.item<float>()), 0.5f, 1e-6f);
    ck_assert_double_eq_tol(MUST(adamw.grad_norm()), 2, 1e-6);
    ck_assert_int_eq(adamw.steps(), 1);
    ck_assert_double_lt(adamw.lr_factor(9), adamw.lr_factor(1));
    adamw.on_gradient(nullptr);
    loss = MUST(o.tape.mse(w, MUST(eqat::tensor::zeros(o.context, EQAT_F32, {1}))));
    MUST(adamw.backward(o.tape, loss));
    ck_assert_int_eq(called, 1);
    adamw.zero_grad();
}
END_TEST

/* ---- models ---- */

START_TEST(a_text_grows)
{
    setting s;
    auto ids = some_tokens(16);
    auto all = MUST(MUST(s.model.forward({ids, 1})).read<float>());
    auto g = MUST(eqat::generation::create(s.model));
    MUST(g.feed(std::vector<std::int32_t>(ids.begin(), ids.begin() + 10)));
    auto last = MUST(MUST(g.feed(ids.data() + 10, 6, 6)).read<float>());
    ck_assert_uint_eq(last.size() % 6, 0);
    for (std::size_t i = 0; i < last.size(); i++)
        ck_assert_float_eq_tol(last[i], all[all.size() - last.size() + i], 1e-4f);
    ck_assert_int_eq(g.length(), 16);
    auto logits = MUST(s.model.forward({ids, 1}));
    auto likeliest = MUST(g.choose(logits));
    ck_assert_uint_eq(likeliest.size(), 1);
    auto end = all.end(), begin = end - logits.size(2);
    ck_assert_int_eq(likeliest[0], std::max_element(begin, end) - begin);
    eqat::choose_options drawn(2);
    drawn.top_k = 1;
    ck_assert(MUST(g.choose(logits, drawn)) == likeliest);
    drawn.top_p = 2;
    FAILS(EQAT_INVALID_ARGUMENT, "top_p: found 2, expected 0 to 1", g.choose(logits, drawn));
    MUST(g.rewind(4));
    ck_assert_int_eq(g.length(), 4);
    FAILS(EQAT_INVALID_ARGUMENT, "length: found 5, expected 0 to 4", g.rewind(5));
}
END_TEST

START_TEST(passes_of_a_model)
{
    setting s;
    auto ids = some_tokens(16);
    auto info = MUST(s.model.info());
    ck_assert_str_eq(info.family, "llama");
    auto linears = MUST(s.model.linears(1));
    ck_assert_str_eq(linears[0].name, "model.layers.1.self_attn.q_proj");
    eqat::batch batch(ids, 2);
    ck_assert_int_eq(batch.time, 8);
    auto logits = MUST(s.model.forward(batch));
    auto tape = MUST(eqat::tape::create(s.context));
    auto x = MUST(s.model.embed(tape, batch));
    x = MUST(s.model.block(tape, 0, x, batch));
    x = MUST(s.model.block(tape, 1, x));
    auto piece = MUST(s.model.logits(tape, x));
    ck_assert(MUST(piece.read<float>()) == MUST(logits.read<float>()));
    ck_assert_int_eq(MUST(s.model.logits(tape, x, 1)).size(1), 1);
    auto gain = MUST(s.model.parameter("model.norm.weight"));
    MUST(gain.set_requires_grad(true));
    auto loss = MUST(s.model.loss(batch, &tape));
    ck_assert_double_eq(MUST(loss.count.item<float>()), 14);
    MUST(tape.backward(loss.loss));
    ck_assert(gain.grad().has_value());
    batch.positions = {ids.data(), 3};
    FAILS(EQAT_INVALID_ARGUMENT, "found 3 values, expected 16", s.model.forward(batch));
    ck_assert_int_gt(s.model.parameter_names().size(), 20);
    FAILS(EQAT_NOT_FOUND, "", s.model.parameter("nothing"));
}
END_TEST

START_TEST(rules_and_linears_from_elsewhere)
{
    setting s;
    eqat::quantizer_options four;
    four.bits = 4;
    four.group_size = 16;
    MUST(s.quantizer.add_rule("*.down_proj", four));
    MUST(s.quantizer.skip("*.0.*"));
    ck_assert(!s.quantizer.lookup("model.layers.0.mlp.down_proj"));
    ck_assert_int_eq(s.quantizer.lookup("model.layers.1.mlp.down_proj")->bits, 4);
    ck_assert_int_eq(s.quantizer.lookup("model.layers.1.mlp.up_proj")->bits, 2);
    MUST(s.model.quantize_rtn(s.quantizer));
    ck_assert_int_eq(MUST(s.model.linears(0))[0].bits, 0);
    auto w = MUST(s.model.parameter("model.layers.0.self_attn.k_proj.weight"));
    auto packed = MUST(MUST(eqat::quantizer::create(s.context, four)).quantize(w));
    MUST(s.model.set_linear(0, 1, packed));
    ck_assert_int_eq(MUST(s.model.linears(0))[1].bits, 4);
    four.bits = 9;
    FAILS(EQAT_INVALID_ARGUMENT, "bits", eqat::quantizer::create(s.context, four));
}
END_TEST

/* ---- text and data ---- */

START_TEST(text_to_ids_and_back)
{
    auto context = MUST(eqat::context::create());
    auto t = MUST(eqat::tokenizer::open(context, source("/tests/tokenizer/fuzz_words.json")));
    ck_assert_int_eq(t.vocab_size(), 8);
    auto bos = t.token_id("<s>");
    ck_assert(bos && t.is_special(*bos));
    ck_assert(*t.token_text(*bos) == "<s>");
    ck_assert(!t.token_text(7) || !t.token_text(7)->empty());
    ck_assert(!t.token_text(99) && !t.token_id("nothing like it"));
    ck_assert(!t.bos() && !t.eos());
    auto ids = MUST(t.encode("<s>", EQAT_TOKENIZE_PARSE_SPECIAL));
    ck_assert(ids == std::vector<std::int32_t>{*bos});
    ck_assert(MUST(t.encode("")).empty());
    ck_assert(MUST(t.decode(ids, EQAT_TOKENIZE_SKIP_SPECIAL)).empty());
    ck_assert(MUST(t.decode(ids)) == "<s>");
    FAILS(EQAT_INVALID_ARGUMENT, "", t.decode({99}));
    t.release_buffers();
    scratch folder;
    std::filesystem::create_directory(folder / "saved");
    MUST(t.save(folder / "saved"));
    ck_assert(!read_file(folder / "saved/tokenizer.json").empty());
    (void)t.unk();
}
END_TEST

START_TEST(a_models_tokenizer_keeps_the_model)
{
    scratch folder;
    std::filesystem::copy(small_model(), folder / "model");
    std::filesystem::copy(source("/tests/tokenizer/fuzz_words.json"),
                          folder / "model/tokenizer.json");
    std::optional<eqat::tokenizer> t;
    {
        auto context = MUST(eqat::context::create());
        t = MUST(eqat::model::open(context, folder / "model")).tokenizer();
        ck_assert(!MUST(eqat::model::open(context, small_model())).tokenizer());
    }
    ck_assert(t.has_value());
    ck_assert_int_eq(t->vocab_size(), 8);
}
END_TEST

START_TEST(samples)
{
    setting s;
    auto sample = MUST(s.data.at(1, EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS));
    ck_assert_uint_eq(sample.ids.size(), 16);
    ck_assert_int_eq(sample.labels[0], sample.ids[1]);
    ck_assert(sample.positions.empty());
    ck_assert(MUST(s.data.at(0, EQAT_SAMPLE_IDS, true)).ids != sample.ids);
    FAILS(EQAT_INVALID_ARGUMENT, "", s.data.at(6));
    ck_assert_int_eq(s.data.train_size(), 6);
    ck_assert_int_eq(s.data.val_size(), 2);
    ck_assert_int_eq(s.data.token_count(), 640);
    ck_assert_int_eq(s.data.fields(), EQAT_SAMPLE_IDS);
    ck_assert_int_eq(s.data.order(0, 99), -1);
    scratch folder;
    std::filesystem::create_directory(folder / "x");
    FAILS(EQAT_NOT_FOUND, "none.u16", eqat::data::open(s.context, folder / "none.u16"));
    FAILS(EQAT_FORMAT, "", eqat::data::from_tokens(s.context, some_tokens(4), few_samples()));
}
END_TEST

START_TEST(records_of_the_callers)
{
    setting s;
    auto fill = [](bool validation, std::int64_t index,
                   const eqat::record &r) -> eqat::outcome<void> {
        if (index == 5) BREAK("record 5 is lost");
        for (float &x : r.embeddings) x = validation ? -1.0f : static_cast<float>(index);
        for (std::int32_t &l : r.labels) l = 3;
        return eqat::outcome<void>();
    };
    auto data = MUST(eqat::data::from_records(
        s.context, fill, EQAT_SAMPLE_EMBEDDINGS | EQAT_SAMPLE_LABELS, few_samples(), 96, 32));
    ck_assert_int_eq(data.hidden_size(), 32);
    auto sample = MUST(data.at(2, EQAT_SAMPLE_EMBEDDINGS | EQAT_SAMPLE_LABELS));
    ck_assert_uint_eq(sample.embeddings.size(), 16 * 32);
    ck_assert_float_eq(sample.embeddings.back(), 2);
    ck_assert_int_eq(sample.labels[15], 3);
    FAILS(EQAT_FORMAT, "record 5 is lost", data.at(5, EQAT_SAMPLE_LABELS));
    FAILS(EQAT_INVALID_ARGUMENT, "", eqat::data::from_records(s.context, fill, 0, few_samples()));
    FAILS(EQAT_INVALID_ARGUMENT, "fill",
          eqat::data::from_records(s.context, nullptr, EQAT_SAMPLE_IDS, few_samples()));
}
END_TEST

/* ---- the context and options ---- */

START_TEST(options_start_with_the_librarys_defaults)
{
    eqat_data_options c;
    eqat_data_options_init(&c, sizeof c);
    eqat::data_options o;
    ck_assert_mem_eq(static_cast<eqat_data_options *>(&o), &c, sizeof c);
    auto context = MUST(eqat::context::create());
    MUST(eqat::set_option(context, o, "train_size", "512"));
    ck_assert_int_eq(o.train_size, 512);
    FAILS(EQAT_NOT_FOUND, "nothing", eqat::set_option(context, o, "nothing", "1"));
    eqat::block_ap_options b;
    MUST(eqat::set_option(context, b, "epochs", "3"));
    ck_assert_int_eq(b.epochs, 3);
    ck_assert_uint_gt(eqat::option_structs().size(), 9);
    auto fields = eqat::option_fields("quantizer");
    ck_assert_str_eq(fields[0].name, "bits");
    ck_assert_uint_eq(eqat::option_size("data"), sizeof c);
    ck_assert(eqat::option_fields("nothing").empty());
}
END_TEST

START_TEST(recipes_by_name)
{
    auto context = MUST(eqat::context::create());
    auto names = eqat::recipe_names();
    ck_assert(names == (std::vector<std::string>{"paper", "best"}));
    eqat::block_ap_options o;
    MUST(eqat::take_recipe(context, "best", "block_ap", o));
    ck_assert_int_eq(o.lr_unit, EQAT_LR_RELATIVE);
    FAILS(EQAT_INVALID_ARGUMENT, "worst", eqat::take_recipe(context, "worst", "block_ap", o));
    auto said = eqat::recipe_options("best", "run");
    ck_assert(said.size() == 1 && said[0].first == "teacher" && said[0].second == "source");
    ck_assert(eqat::recipe_options("best", "nothing").empty());
}
END_TEST

START_TEST(a_context_calls_back)
{
    std::size_t given = 0;
    int lines = 0, rounds = 0;
    eqat::context_options o;
    o.log_level = EQAT_LOG_DEBUG;
    o.threads = 2;
    o.on_log = [&](eqat_log_level, std::string_view line) { lines += !line.empty(); };
    o.on_alloc = [&](std::size_t size, std::size_t align) {
        given += size;
        return std::aligned_alloc(align, (size + align - 1) / align * align);
    };
    o.on_free = [&](void *p, std::size_t size) {
        given -= size;
        std::free(p);
    };
    o.on_parallel = [&](std::size_t count, const std::function<void(std::size_t)> &task) {
        rounds++;
        std::thread other([&] { task(count - 1); });
        for (std::size_t i = 0; i + 1 < count; i++) task(i);
        other.join();
    };
    {
        setting s(o);
        auto logits = MUST(s.model.forward({some_tokens(64)}));
        ck_assert_uint_gt(given, 0);
        ck_assert_uint_ge(s.context.bytes_peak(), s.context.bytes());
        s.context.trim();
        s.context.reset_peak();
        ck_assert_uint_eq(s.context.device_bytes(), s.context.bytes());
        ck_assert_uint_eq(s.context.device_bytes_peak(), s.context.bytes());
        ck_assert_uint_eq(s.context.device_bytes_left(), SIZE_MAX);
        ck_assert_int_eq(s.context.threads(), 2);
        auto few = few_samples();
        few.train_size = 1000; /* fewer are taken, which the log says */
        few.sampling = EQAT_SAMPLING_CONSECUTIVE;
        MUST(eqat::data::from_tokens(s.context, some_tokens(), few));
    }
    ck_assert_uint_eq(given, 0);
    ck_assert_int_gt(lines, 0);
    ck_assert_int_gt(rounds, 0);
    o.on_free = nullptr;
    FAILS(EQAT_INVALID_ARGUMENT, "alloc", eqat::context::create(o));
    o = eqat::context_options();
    o.device = "abacus";
    FAILS(EQAT_INVALID_ARGUMENT, "abacus", eqat::context::create(o));
    o.device = "cpu";
    o.on_alloc = [](std::size_t, std::size_t) { return nullptr; };
    o.on_free = [](void *, std::size_t) {};
    FAILS(EQAT_OUT_OF_MEMORY, "", eqat::context::create(o));
    ck_assert(!eqat::version().empty());
}
END_TEST

#ifndef EQAT_NO_EXCEPTIONS
START_TEST(what_the_log_throws_comes_out)
{
    eqat::context_options o;
    bool armed = false;
    o.on_log = [&](eqat_log_level, std::string_view) {
        if (armed) throw 7;
    };
    setting s(o);
    auto few = few_samples();
    few.train_size = 1000;
    few.sampling = EQAT_SAMPLING_CONSECUTIVE;
    armed = true;
    int caught = 0;
    try {
        auto lost = eqat::data::from_tokens(s.context, some_tokens(), few);
    } catch (int n) {
        caught = n;
    }
    ck_assert_int_eq(caught, 7);
    armed = false;
    MUST(s.model.forward({some_tokens(8)}));
}
END_TEST
#endif

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, values_go_in_and_out);
    tcase_add_test(tc, memory_of_the_callers);
    tcase_add_test(tc, linears);
    tcase_add_test(tc, ops_of_a_block);
    tcase_add_test(tc, ops_on_rows);
    tcase_add_test(tc, an_op_of_ones_own);
    tcase_add_test(tc, a_segment_runs_again);
    tcase_add_test(tc, an_optimizer_steps);
    tcase_add_test(tc, passes_of_a_model);
    tcase_add_test(tc, a_text_grows);
    tcase_add_test(tc, rules_and_linears_from_elsewhere);
    tcase_add_test(tc, text_to_ids_and_back);
    tcase_add_test(tc, a_models_tokenizer_keeps_the_model);
    tcase_add_test(tc, samples);
    tcase_add_test(tc, records_of_the_callers);
    tcase_add_test(tc, options_start_with_the_librarys_defaults);
    tcase_add_test(tc, recipes_by_name);
    tcase_add_test(tc, a_context_calls_back);
#ifndef EQAT_NO_EXCEPTIONS
    tcase_add_test(tc, what_the_log_throws_comes_out);
#endif
    return run_case("C++ calls", tc, CK_NOFORK);
}
