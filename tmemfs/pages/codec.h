/* A page as it is stored: what tmemfs/pages/codec.py says, for those who read without it. */

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

#endif
