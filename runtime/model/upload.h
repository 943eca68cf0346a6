/// Bringing a model file's tensors onto the device in the kernels' layouts.
#ifndef MODEL_UPLOAD_H
#define MODEL_UPLOAD_H

#include "model/model.h"

typedef struct model_upload model_upload;

zs_status model_upload_create(zs_model *model, const zs_model_params *params, uint64_t total_bytes, model_upload **upload, zs_error *error);
/// Uploads a tensor [out, in] as a matrix; rows come in the order that matrix_file_row (may be NULL) tells.
zs_status model_upload_matrix(model_upload *upload, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight,
                              zs_error *error);
/// The same into a buffer that is there, of at least matrix_bytes.
zs_status model_upload_into(model_upload *upload, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight,
                            const gpu_buffer *buffer, zs_error *error);
/// The same into host memory, malloc'ed; weight has no address.
zs_status model_upload_host(model_upload *upload, const gguf_tensor *tensor, const model_matrix *permutation, matrix *weight, void **host,
                            zs_error *error);
/// What model_upload_host made, into a buffer.
zs_status model_upload_packed(model_upload *upload, const matrix *weight, const void *host, const gpu_buffer *buffer, zs_error *error);
/// Waits until all so far is on the device.
zs_status model_upload_wait(model_upload *upload, zs_error *error);
/// Uploads a vector as f32, padded by zeros to a multiple of 32.
zs_status model_upload_vector(model_upload *upload, const gguf_tensor *tensor, uint64_t *address, zs_error *error);
zs_status model_upload_finish(model_upload **upload, zs_error *error);

#endif
