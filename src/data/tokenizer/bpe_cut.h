/* Byte-pair encoding of a text that no pre-tokenizer split, above bpe.h, which encodes the pieces.
 */
#ifndef EQI_TOKENIZER_BPE_CUT_H
#define EQI_TOKENIZER_BPE_CUT_H

#include "data/tokenizer/bpe.h"

/* Finds out where texts may be cut; after eqi_bpe_finish. */
eqat_status eqi_bpe_plan_cuts(eqi_bpe *bpe);

/* Cuts where no merge can reach across, then goes word by word. The ids are those of the text taken
 * as one word, in time that does not grow faster than its length times the logarithm of the longest
 * cut. */
eqat_status eqi_bpe_text(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out);

#endif
