/* A page as it is stored: what tmemfs/pages/codec.py says, for those who do without it. */

#ifndef TMEMFS_CODEC_H
#define TMEMFS_CODEC_H

#include <lz4.h>
#include <string.h>

#define WORD 8u

/* Decode the payload of *size* bytes to a page; 0 where it is not one. */
static inline int decode_page(const char *payload, unsigned size, char *page, unsigned page_size)
{
    if (size == 0) {
        memset(page, 0, page_size);
    } else if (size == WORD) {
        for (unsigned at = 0; at < page_size; at += WORD)
            memcpy(page + at, payload, WORD);
    } else if (size == page_size) {
        memcpy(page, payload, page_size);
    } else {
        return WORD < size && size < page_size &&
               LZ4_decompress_safe(payload, page, (int)size, (int)page_size) == (int)page_size;
    }
    return 1;
}

/* Have the memory of the stack that it takes to encode a page; *room* is for two of them. */
static inline void touch_encoder(char *room, unsigned page_size)
{
    memset(room, 0, page_size);
    (void)LZ4_compress_default(room, room + page_size, (int)page_size, (int)page_size);
}

/* Encode a page. Returns its payload, at *room* (as large as a page) where it is compressed, and else
   in the page itself; in *size* how long it is. */
static inline const char *encode_page(const char *page, unsigned page_size, char *room,
                                      unsigned *size)
{
    static const char zero[WORD];
    /* Two words tell most pages apart; then each page is compared with itself, a word further on. */
    if (memcmp(page, page + page_size - WORD, WORD) == 0 &&
        memcmp(page, page + WORD, page_size - WORD) == 0) {
        *size = memcmp(page, zero, WORD) ? WORD : 0;
        return page;
    }
    /* Room for what is worth it: lz4 gives up where it is not. */
    unsigned most = page_size - page_size / 8 - 1;
    int compressed = LZ4_compress_default(page, room, (int)page_size, (int)most);
    *size = compressed > 0 ? (unsigned)compressed : page_size;
    return compressed > 0 ? room : page;
}

#endif
