#include "data/tokenizer/added.h"

#include "data/tokenizer/utf8.h"

static void trie_init(eqi_trie *t)
{
    for (int b = 0; b < 256; b++) t->first[b] = -1;
    t->single = -1;
}

void eqi_added_init(eqi_added *a)
{
    *a = (eqi_added){0};
    trie_init(&a->raw);
    trie_init(&a->normalized);
}

void eqi_added_free(eqi_ctx *ctx, eqi_added *a)
{
    eqi_free(ctx, a->tokens);
    eqi_free(ctx, a->raw.nodes);
    eqi_free(ctx, a->normalized.nodes);
    eqi_free(ctx, a->by_id);
    eqi_vocab_free(ctx, &a->texts);
    eqi_bytes_free(ctx, &a->forms);
    eqi_added_init(a);
}

const eqi_added_token *eqi_added_by_text(const eqi_added *a, const char *text, size_t n)
{
    int32_t i = eqi_vocab_find(&a->texts, text, n);
    return i == EQI_NO_ID ? NULL : &a->tokens[i];
}

const eqi_added_token *eqi_added_by_id(const eqi_added *a, int32_t id)
{
    int32_t low = 0, high = a->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (a->tokens[a->by_id[middle]].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < a->count && a->tokens[a->by_id[low]].id == id ? &a->tokens[a->by_id[low]] : NULL;
}

const char *eqi_added_text(const eqi_added *a, const eqi_added_token *token, size_t *n)
{
    return eqi_vocab_text(&a->texts, (int32_t)(token - a->tokens), n);
}

const char *eqi_added_form(const eqi_added *a, const eqi_added_token *token, size_t *n)
{
    if (!token->other_form) return eqi_added_text(a, token, n);
    *n = token->form_length;
    return a->forms.data + token->form;
}

eqat_status eqi_added_put(eqi_ctx *ctx, eqi_added *a, const eqi_added_token *token,
                          const char *text, size_t n)
{
    int32_t index = eqi_vocab_find(&a->texts, text, n);
    if (index != EQI_NO_ID) {
        bool special = a->tokens[index].special; /* once special, always special */
        a->tokens[index] = *token;
        a->tokens[index].special |= special;
        return EQAT_OK;
    }
    if (a->count == a->capacity) {
        int32_t capacity = a->capacity ? a->capacity * 2 : 32;
        eqi_added_token *p =
            eqi_realloc(ctx, a->tokens, (size_t)capacity * sizeof *p, "added tokens");
        if (!p) return EQAT_OUT_OF_MEMORY;
        a->tokens = p;
        a->capacity = capacity;
    }
    EQI_RETURN_IF(eqi_vocab_add(ctx, &a->texts, a->count, text, n));
    a->tokens[a->count++] = *token;
    return EQAT_OK;
}

eqat_status eqi_added_set_form(eqi_ctx *ctx, eqi_added *a, int32_t index, const char *form,
                               size_t n)
{
    a->tokens[index].form = a->forms.size;
    a->tokens[index].form_length = n;
    a->tokens[index].other_form = true;
    EQI_RETURN_IF(eqi_bytes_append(ctx, &a->forms, form, n));
    return eqi_bytes_append(ctx, &a->forms, "", 1);
}

static eqat_status trie_node(eqi_ctx *ctx, eqi_trie *t, unsigned char byte, int32_t sibling,
                             int32_t *out)
{
    if (t->count == t->capacity) {
        int32_t capacity = t->capacity ? t->capacity * 2 : 256;
        eqi_trie_node *p = eqi_realloc(ctx, t->nodes, (size_t)capacity * sizeof *p, "added tokens");
        if (!p) return EQAT_OUT_OF_MEMORY;
        t->nodes = p;
        t->capacity = capacity;
    }
    t->nodes[t->count] =
        (eqi_trie_node){.child = -1, .sibling = sibling, .token = -1, .byte = byte};
    *out = t->count++;
    return EQAT_OK;
}

static int32_t among(const eqi_trie *t, int32_t node, unsigned char byte)
{
    while (node >= 0 && t->nodes[node].byte != byte) node = t->nodes[node].sibling;
    return node;
}

static eqat_status trie_put(eqi_ctx *ctx, eqi_trie *t, const char *s, size_t n, int32_t token)
{
    const unsigned char *p = (const unsigned char *)s;
    int32_t node = t->first[p[0]];
    if (node < 0) {
        EQI_RETURN_IF(trie_node(ctx, t, p[0], -1, &node));
        t->first[p[0]] = node;
    }
    for (size_t i = 1; i < n; i++) {
        int32_t next = among(t, t->nodes[node].child, p[i]);
        if (next < 0) {
            EQI_RETURN_IF(trie_node(ctx, t, p[i], t->nodes[node].child, &next));
            t->nodes[node].child = next;
        }
        node = next;
    }
    t->nodes[node].token = token;
    return EQAT_OK;
}

eqat_status eqi_added_finish(eqi_ctx *ctx, eqi_added *a)
{
    a->by_id = eqi_alloc(ctx, (size_t)a->count * sizeof *a->by_id, "added tokens");
    if (!a->by_id) return EQAT_OUT_OF_MEMORY;
    for (int32_t i = 0, j; i < a->count; i++) {
        for (j = i; j && a->tokens[a->by_id[j - 1]].id > a->tokens[i].id; j--)
            a->by_id[j] = a->by_id[j - 1];
        a->by_id[j] = i;
        size_t n = 0;
        const eqi_added_token *k = &a->tokens[i];
        const char *form = eqi_added_form(a, k, &n);
        if (n) EQI_RETURN_IF(trie_put(ctx, k->normalized ? &a->normalized : &a->raw, form, n, i));
    }
    eqi_trie *both[] = {&a->raw, &a->normalized};
    for (size_t k = 0; k < EQI_COUNT(both); k++) {
        int bytes = 0;
        for (int b = 0; b < 256; b++)
            if (both[k]->first[b] >= 0) {
                both[k]->single = b;
                bytes++;
            }
        if (bytes != 1) both[k]->single = -1;
    }
    return EQAT_OK;
}

/* The longest token at the first place from *at on where there is one. */
static int32_t find(const eqi_trie *t, const char *s, size_t n, size_t *at, size_t *end)
{
    for (size_t i = *at; i < n; i++) {
        if (t->single >= 0) {
            const char *p = memchr(s + i, t->single, n - i);
            if (!p) break;
            i = (size_t)(p - s);
        }
        int32_t node = t->first[(unsigned char)s[i]], best = -1;
        for (size_t k = i + 1; node >= 0; k++) {
            if (t->nodes[node].token >= 0) {
                best = t->nodes[node].token;
                *end = k;
            }
            node = k < n ? among(t, t->nodes[node].child, (unsigned char)s[k]) : -1;
        }
        if (best >= 0) {
            *at = i;
            return best;
        }
    }
    return -1;
}

static bool word_before(const char *s, size_t at)
{
    size_t step;
    if (!at) return false;
    do at--;
    while (at && (s[at] & 0xc0) == 0x80);
    return eqi_char_is_word(eqi_utf8_get(s + at, &step));
}

static bool word_behind(const char *s, size_t n, size_t at)
{
    size_t step;
    return at < n && eqi_char_is_word(eqi_utf8_get(s + at, &step));
}

static size_t spaces_before(const char *s, size_t at)
{
    while (at) {
        size_t i = at, step;
        do i--;
        while (i && (s[i] & 0xc0) == 0x80);
        if (!eqi_char_is_space(eqi_utf8_get(s + i, &step))) break;
        at = i;
    }
    return at;
}

static size_t spaces_behind(const char *s, size_t n, size_t at)
{
    size_t step;
    while (at < n && eqi_char_is_space(eqi_utf8_get(s + at, &step))) at += step;
    return at;
}

static bool token_piece(eqi_pieces *p)
{
    p->id = p->held_id;
    p->start = p->done;
    p->end = p->done = p->held_stop;
    p->held = false;
    return true;
}

bool eqi_added_next(const eqi_added *a, eqi_pieces *p)
{
    if (p->held) return token_piece(p);
    const eqi_trie *t = p->normalized ? &a->normalized : &a->raw;
    size_t start = p->search, stop = 0;
    int32_t k;
    while ((k = find(t, p->s, p->n, &start, &stop)) >= 0) {
        const eqi_added_token *token = &a->tokens[k];
        p->search = stop;
        bool other_word =
            token->single_word && (word_before(p->s, start) || word_behind(p->s, p->n, stop));
        if (other_word || (token->special && !p->parse_special)) {
            start = stop;
            continue;
        }
        if (token->lstrip) {
            start = spaces_before(p->s, start);
            if (start < p->done) start = p->done;
        }
        if (token->rstrip) stop = spaces_behind(p->s, p->n, stop);
        p->held_id = token->id;
        p->held_stop = stop;
        if (p->done >= start) return token_piece(p);
        p->held = true;
        p->id = EQI_NO_ID;
        p->start = p->done;
        p->end = p->done = start;
        return true;
    }
    p->search = p->n;
    if (p->done >= p->n) return false;
    p->id = EQI_NO_ID;
    p->start = p->done;
    p->end = p->done = p->n;
    return true;
}
