"""Networks: torch modules only. No data, no files, no loop; what trains them is :mod:`maury.train.loop`.

* :mod:`~maury.networks.mlp`: multilayer perceptrons, many of one shape side by side.
* :mod:`~maury.networks.autoencoder`: one whose layers narrow to a few latent numbers and widen again.
* :mod:`~maury.networks.cnn1d`: convolutional networks over the pixels; :mod:`~maury.networks.topology`: their shape as data (no
  torch there).
"""
