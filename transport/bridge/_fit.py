r"""Fit a light bridge: by alternating, by any first-order method, or by any minimiser.

**Alternating** (`Alternating`) is to the bridge what expectation-maximisation is to a mixture. Both
terms of the objective hold a logarithm of a sum over components. Given the current ones, let
$\rho_k(x_1)$ be the shares in $v$, and $w_k(x_0)$ those in $c$. Jensen's inequality bounds the
first by $\sum_k \rho_k \log(\alpha_k \mathcal{N}(x_1 | r_k, S_k))$ from below, as always; the
tangent of the logarithm bounds the second, $\log c \le \log c^{old} + c / c^{old} - 1$, from above.
The bound is a sum over components, and needs of the samples of the end their moments under
$\rho_k$ (mass, mean $\mu_1$, covariance $\Sigma_1$), and of the start
$\mathbb{E}[c_k / c^{old}]$. Taking the starts under $w_k$ as Gaussian with their moments
($\mu_0$, $\Sigma_0$), this is a Gaussian integral, and the minimum closed: with
$\Lambda^{-1} = \Sigma_0 (I + S \Sigma_0)^{-1}$, the covariance that the tilt by $S$ leaves,

$$ S' = (\Sigma_1^{-1} + \Lambda^{-1})^{-1}, \qquad
   r' = S' (\Sigma_1^{-1} \mu_1 - \Lambda^{-1} (\Sigma_0^{-1} \mu_0 - r)), $$

and $\alpha'$ is such that the masses agree. The mean and the covariance of a component's ends, given
the shares of the starts, then are those of the samples: at a fixed point the gradient of the
objective is zero, Gaussian or not. For one component this is Sinkhorn's iteration between
Gaussians (Janati et al. 2020).
"""
