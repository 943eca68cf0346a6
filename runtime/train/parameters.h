/// What is trained: the values of an expert's matrices, one after another, as its file holds them. How they become multipliers, what the
/// gradient by the multipliers z is by them, and which values mean z = 1.
#ifndef TRAIN_PARAMETERS_H
#define TRAIN_PARAMETERS_H

#include "adapt/expert.h"
#include "zsigma/zsigma_lab.h"

typedef struct parameter_matrix {
    const model_weight *weight;
    size_t offset; // of its values
} parameter_matrix;

typedef struct parameters {
    const zs_model *model;
    bool sigmoid, trace;
    double max_mult;
    parameter_matrix *matrices; // [matrix_count], sorted by name
    uint32_t matrix_count;
    float *values; // [count]
    size_t count;
} parameters;

typedef struct parameters_form {
    bool sigmoid, trace;
    double max_mult;   // of the sigmoid
    uint32_t matrices; // ZS_MATRICES_* bits; 0: all that the model has as factors and that items can teach
    bool images;       // items have some, so that the tower and its projector learn too
    uint64_t seed;     // of the sigmoid's first values
} parameters_form;

/// At z = 1, or as near as the authors' code starts: p = 0.1 + 0.01 N(0, 1) under sigmoid and trace. ZS_ERROR_ARGUMENT for a sigmoid
/// without trace that cannot give 1, and for matrices that the model does not have as factors.
zs_status parameters_create(const zs_model *model, const parameters_form *form, parameters *parameters, zs_error *error);
/// An expert's matrices, values and form, checked against the model (expert_fit_check).
zs_status parameters_from_expert(const zs_model *model, const zs_expert *expert, bool transfer, parameters *parameters, zs_error *error);
void parameters_destroy(parameters *parameters);

/// z_gradient is laid out like a row of scales; gradient[count] becomes that by the values.
void parameters_gradient(const parameters *parameters, const float *z_gradient, float *gradient);
/// centres[count]: the values near these at which z is 1. Under trace those are the ones that are all alike and give the same Σσm.
void parameters_centres(const parameters *parameters, float *centres);

/// Texts of an expert; NULL: "".
typedef struct parameters_texts {
    const char *name, *description, *training;
    bool dispatcher;
} parameters_texts;
/// An expert with these values[count].
zs_status parameters_expert(const parameters *parameters, const float *values, const parameters_texts *texts, zs_expert **expert,
                            zs_error *error);

#endif
