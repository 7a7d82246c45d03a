/*
 * The AVX-512 kernels of Intel's libipsec-mb 1.3, for aead.rs. They are called below its job manager: the manager
 * refers to every algorithm of the library for every processor (14 MB of code), these to less than 1 MB. The
 * library declares them only in its own headers, hence the prototypes. The caller has checked the
 * processor: AVX-512 with IFMA for ChaCha20-Poly1305, with VAES and VPCLMULQDQ for AES-256-GCM.
 */
#include <intel-ipsec-mb.h>

_Static_assert(IMB_VERSION_NUM == IMB_VERSION(1, 3, 0), "the prototypes below are those of libipsec-mb 1.3.0");
_Static_assert(sizeof(struct gcm_key_data) <= 1024, "GcmState in aead.rs has this size");

IMB_JOB *aead_chacha20_poly1305_avx512(IMB_MGR *manager, IMB_JOB *job);
void aes_gcm_precomp_256_vaes_avx512(struct gcm_key_data *state);
void aes_gcm_enc_256_vaes_avx512(const struct gcm_key_data *state, struct gcm_context_data *context, uint8_t *out,
                                 const uint8_t *in, uint64_t length, const uint8_t *nonce,
                                 const uint8_t *associated, uint64_t associated_bytes, uint8_t *tag,
                                 uint64_t tag_bytes);
void aes_gcm_dec_256_vaes_avx512(const struct gcm_key_data *state, struct gcm_context_data *context, uint8_t *out,
                                 const uint8_t *in, uint64_t length, const uint8_t *nonce,
                                 const uint8_t *associated, uint64_t associated_bytes, uint8_t *tag,
                                 uint64_t tag_bytes);

/* Encrypts or decrypts `length` bytes in place and writes the 16-byte tag of the ciphertext. */
void ox_mb_chacha20_poly1305(const uint8_t *key, const uint8_t *nonce, const uint8_t *associated,
                             uint64_t associated_bytes, uint8_t *text, uint64_t length, uint8_t *tag, int seal)
{
        /* The kernel reads nothing of the manager but its features. */
        const uint64_t head[2] = {0, IMB_FEATURE_AVX512_IFMA};
        IMB_JOB job;

        job.enc_keys = key;
        job.dec_keys = key;
        job.key_len_in_bytes = 32;
        job.src = text;
        job.dst = text;
        job.cipher_start_src_offset_in_bytes = 0;
        job.msg_len_to_cipher_in_bytes = length;
        job.hash_start_src_offset_in_bytes = 0;
        job.msg_len_to_hash_in_bytes = length;
        job.iv = nonce;
        job.iv_len_in_bytes = 12;
        job.auth_tag_output = tag;
        job.auth_tag_output_len_in_bytes = 16;
        job.u.CHACHA20_POLY1305.aad = associated;
        job.u.CHACHA20_POLY1305.aad_len_in_bytes = associated_bytes;
        job.cipher_direction = seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
        aead_chacha20_poly1305_avx512((IMB_MGR *) head, &job);
}

/* Expands a 32-byte key into `state`, which is aligned to 64 bytes. */
void ox_mb_aes256_gcm_expand(const uint8_t *key, struct gcm_key_data *state)
{
        aes_keyexp_256_enc_avx2(key, state->expanded_keys);
        aes_gcm_precomp_256_vaes_avx512(state);
}

/* The same as ox_mb_chacha20_poly1305 with an expanded key. */
void ox_mb_aes256_gcm(const struct gcm_key_data *state, const uint8_t *nonce, const uint8_t *associated,
                      uint64_t associated_bytes, uint8_t *text, uint64_t length, uint8_t *tag, int seal)
{
        struct gcm_context_data context;

        if (seal)
                aes_gcm_enc_256_vaes_avx512(state, &context, text, text, length, nonce, associated,
                                            associated_bytes, tag, 16);
        else
                aes_gcm_dec_256_vaes_avx512(state, &context, text, text, length, nonce, associated,
                                            associated_bytes, tag, 16);
}
