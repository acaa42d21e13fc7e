// Quantizes a model in C++: Block-AP, then E2E-QP, and the perplexity before and after.
//
//     quantize MODEL TEXT OUT [SEQ_LEN [SAMPLES]]
#include <cstdlib>
#include <eqat/eqat.hpp>
#include <iostream>

namespace
{

eqat::proceed tell(const eqat_progress &p)
{
    if (p.step % 16 == 0 || p.step == p.steps)
        std::clog << p.phase << ": step " << p.step << " of " << p.steps << ", loss " << p.loss
                  << '\n';
    return eqat::proceed::yes;
}

// As papers measure it: all windows, one behind the other.
double perplexity(const eqat::context &context, const eqat::model &model, const std::string &text,
                  std::int64_t seq_len)
{
    eqat::data_options o;
    o.seq_len = seq_len;
    o.train_size = 0;
    o.val_size = 0;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.shuffle = false;
    auto windows = eqat::data::open(context, text, model.tokenizer(), o);
    return eqat::perplexity(model, windows).perplexity;
}

void quantize(const std::string &path, const std::string &text, const std::string &out,
              std::int64_t seq_len, std::int64_t samples)
{
    eqat::context_options c;
    c.on_log = [](eqat_log_level, std::string_view line) { std::clog << line << '\n'; };
    auto context = eqat::context::create(c);
    auto model = eqat::model::open(context, path);
    eqat::quantizer_options bits; // 2, in groups of 64
    eqat::take_recipe(context, "best", "quantizer", bits);
    auto quantizer = eqat::quantizer::create(context, bits);
    double before = perplexity(context, model, text, seq_len);

    eqat::data_options d;
    d.train_size = samples;
    d.val_size = 0;
    d.seq_len = seq_len;
    auto data = eqat::data::open(context, text, model.tokenizer(), d);
    eqat::block_ap_options blocks;
    eqat::take_recipe(context, "best", "block_ap", blocks); // else the paper's options
    blocks.on_progress = tell;
    eqat::block_ap::quantize(model, quantizer, data, blocks);
    eqat::e2e_qp_options steps;
    eqat::take_recipe(context, "best", "e2e_qp", steps);
    steps.on_progress = tell;
    eqat::e2e_qp::train(model, data, steps);

    model.save(out);
    std::cout << "perplexity " << before << " -> " << perplexity(context, model, text, seq_len)
              << ", " << model.info().linear_bits << " bits per parameter of the linears\n";
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 4) {
        std::cerr << "usage: quantize MODEL TEXT OUT [SEQ_LEN [SAMPLES]]\n";
        return 2;
    }
    try {
        quantize(argv[1], argv[2], argv[3], argc > 4 ? std::atoll(argv[4]) : 2048,
                 argc > 5 ? std::atoll(argv[5]) : 512);
    } catch (const std::exception &e) { // eqat::error is one
        std::cerr << "quantize: " << e.what() << '\n';
        return 1;
    }
}
