/* What the files of src/format that read GGUF share. */
#ifndef EQI_FORMAT_GGUF_IMPL_H
#define EQI_FORMAT_GGUF_IMPL_H

#include "format/gguf.h"

/* The tensors under their GGUF names; borrowed. */
const eqi_source *eqi_gguf_tensors(const eqi_gguf *g);
const char *eqi_gguf_path(const eqi_gguf *g);
eqi_ctx *eqi_gguf_context(const eqi_gguf *g);
/* A source without tensors that reads from g's file and holds g: to be filled and finished by the
 * caller. */
eqat_status eqi_gguf_source_create(eqi_gguf *g, eqi_source **out);

#endif
