"""The pure functions under test, compiled: operation by operation their first call takes six times as long."""

import jax

from facedisent_jax import models
from facedisent_jax.losses import objective

init = jax.jit(models.init, static_argnums=0)
encode = jax.jit(models.encode, static_argnums=0)
encode_logits = jax.jit(models.encode_logits, static_argnums=0)
encode_source = jax.jit(models.encode_source, static_argnums=0)
decode = jax.jit(models.decode, static_argnums=0)
loss_terms = jax.jit(objective.loss_terms, static_argnums=0)
