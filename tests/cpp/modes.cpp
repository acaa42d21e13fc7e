#include "modes.hpp"

#include <unistd.h>

#include <iterator>

scratch::scratch()
{
    std::string path = (std::filesystem::temp_directory_path() / "eqat-cpp-XXXXXX").string();
    ck_assert_ptr_nonnull(mkdtemp(path.data()));
    path_ = path;
}

scratch::~scratch()
{
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string read_file(const std::string &path)
{
    std::ifstream f(path, std::ios::binary);
    ck_assert_msg(f.good(), "%s", path.c_str());
    return {std::istreambuf_iterator<char>(f), {}};
}

static eqat::model_options in_f32()
{
    eqat::model_options o;
    o.compute_dtype = EQAT_F32;
    return o;
}

static eqat::quantizer_options two_bits()
{
    eqat::quantizer_options o;
    o.group_size = 32;
    return o;
}

eqat::data_options few_samples()
{
    eqat::data_options o;
    o.train_size = 6;
    o.val_size = 2;
    o.seq_len = 16;
    return o;
}

std::vector<std::int32_t> some_tokens(std::size_t n)
{
    std::vector<std::int32_t> ids(n);
    for (std::size_t i = 1; i < n; i++)
        ids[i] = static_cast<std::int32_t>((ids[i - 1] * 5 + 7 + static_cast<int>(i * i % 4)) % 96);
    return ids;
}

eqat::block_ap_options fast_block_ap()
{
    eqat::block_ap_options o;
    o.quant_lr = o.weight_lr = 1e-3;
    return o;
}

eqat::e2e_qp_options fast_e2e_qp()
{
    eqat::e2e_qp_options o;
    o.batch_size = 2;
    o.lr = 1e-3;
    return o;
}

setting::setting(const eqat::context_options &options)
    : context(MUST(eqat::context::create(options))),
      model(MUST(eqat::model::open(context, small_model(), in_f32()))),
      quantizer(MUST(eqat::quantizer::create(context, two_bits()))),
      data(MUST(eqat::data::from_tokens(context, some_tokens(), few_samples())))
{
}
