/**
 * Weights of the trained predictors, as base64 of little-endian 32-bit floats, with where they come from and their areas
 * under the curve of precision over recall on unseen streams. Written by `deno task train`, not by hand.
 */
export const TRAINED = {
  "seed": 1,
  "recipe":
    "300 streams of 60 s on each training path of bench/predict_data.ts, 1204223 reports; logistic: 8 epochs; LSTM: 8 epochs, 12 streams side by side, gradients over 64 steps",
  "scores": {
    "training: losses": {
      "logistic": 0.4831,
      "lstm": 0.5303,
    },
    "training: congestion": {
      "logistic": 0.6387,
      "lstm": 0.6437,
    },
    "training: both": {
      "logistic": 0.5949,
      "lstm": 0.5873,
    },
    "training: random": {
      "logistic": 0.1777,
      "lstm": 0.2097,
    },
    "short bursts": {
      "logistic": 0.2565,
      "lstm": 0.273,
    },
    "long bursts": {
      "logistic": 0.0729,
      "lstm": 0.0739,
    },
    "lossy spells": {
      "logistic": 0.8102,
      "lstm": 0.819,
    },
    "congestion": {
      "logistic": 0.7618,
      "lstm": 0.7597,
    },
    "fading": {
      "logistic": 0.1569,
      "lstm": 0.1689,
    },
    "handover": {
      "logistic": 0.1501,
      "lstm": 0.1636,
    },
    "mixed": {
      "logistic": 0.4668,
      "lstm": 0.4617,
    },
  },
  "check": {
    "logistic": 0.5295,
    "lstm": 0.5145,
  },
};
export const LOGISTIC_WEIGHTS =
  "1W+WPhW9Cb/gYaw/8vWOP4aJlD8dZ9q+RDLcP9hLhD4xaDhAbpeuv2YNQ78HUU89u69lvxd1uT8BOAw/wXFFvnUpbUDGBYC+orwIv1okbL+g9PU9i80zv5OSzb7/eAy91RiUwA==";
export const LSTM_WEIGHTS =
  "FI89vhVVxL2UENm9Ahi+vSlXdT3kEp6+eymiPQYc/js1GKw9YCoOvjJOkb6uOJ2+OkF9vy4eIL84xpe/7iFdP3keG78CgrQ9JNH4vuDYor4RQZC8cVqPvIyeQL5EgAS+mnxWPnR0eT7Ybta9ZCSMPTgJOj5sG249x03fPebUTj5RB5q+pQAQv420Cr7e+PW9SUo5P7bBCT8DUv0+ov/0vXAuxz7UvTw/k+lAPx2OZj4arms+nIYXPuiKcL5lwRg++zvIPRWq+L0xzQw8gX8Mv8IYiT7M/ps+pMAAPwerNL1yWQE8BOIqPGkEjz7qXSk9rL+3vRCnVLxmGIW+tkdIPlUR2r7CvfA9FcOWvr5RZb0DrNO+7eE9vkj8HL7qAYy+Sc3mPbjAQD7ysIs+R9N+PnvA0r48F5G+A7SyvubyJr5Ftxy9nFN5vo5zKb0ZGA4+DNIBvk8Rar1pYd88zO8nvnrlxj656fA9kXsYvTxz9TyT5hc9uDYfPxieCj7x0zU+Ao2LvteWvD+m+kS+HuP+PbZlAz+/Ego+T3BtP7LgDT1vwYM+G99hvVDXtD7rTq29yR+SPqe4CD/PBUo/jC8Cv3v/Dz+YGLI8ECseQByMfj07exo/JkLuPbTcbj9mcg+/c1iyPvTtR70n2Xy+/KXWvVOFx76BtI8+ljwWPyrvDj36tDQ+RhUjP7q7zz78JQ2/RF76vfDrC71brj69yjSyPm5qw722bGm9zFBgPlxEQD3FJ9G9HAUAv/ZmQL2EImQ+FpLUPpePvD0gDxW9lkeFPWjzJz6Pzz6+odm7Pv/OiL2HO3y+P5AWv8gWXD5bkDU+/G2jvm65DT6zxgi+lc0UvOojjj5Ap5Y9xPUcvp2+8b3TseI9m9BfPiu2977N0na+f4PHvndxMD/N5ME+s584vwaK0bw9DZS9ntvEvoN0pj7RUMA9MKnXPQRjRT/kiqS979zIvpQxgz7Ry9e+6N0bPUXxo716pM094NZKvsH9Uz4NuiO+oJSLvmrIar4YEEg+I/4jPoHBQT5orko+sEPXvKrWjr6YQgpAAIlTvs5ndL3KW7W+YVm2PaySf78meIg+V/IGv2KQAL9wxom/0k3IPkUo6LxNTwK9r50Av+xi5z1QKaW+tdu+vj9wBMCH4Yk++cEJvrDWDT6Noey/sbDCvq8ZuL4tW0a+BdmTv3p8rr5LPi0/WugzPpZo6b+0UA2/j5zNvhBSyT4CcVa+xBoJPhA5TL6ZWB++O2IbvoYai7zbIBA+rRmJvSOi0j6kBIc9yDu1PmZzeb56NIi/KevoPUvUAb6mHZ6+mIlHP4X2er3gPW8+W5CwvqSU6j5FX4Q+dQG/vKo6Bb5N2US+NtJpPYoa6z2z2IM9kaWyv68l672llSE+/ntMP0X7Wz+78KW+HWcXPMlL6D41cEm/fHp2vtmEvj6YlQW+WUnJPh6m/TvJrtE+dq2hPrN7r77AvbW9xASyPT+G+L3zkuO+hKZQPTvBwr4m/fY8k7UzviA7P70lDZE+ILBVPhMiir57Otg8LC+NPiqFor4LdGC+lc2EvbAxFj6IAbW+Ib6Nvx4KfL4dgZi+6UkiQJJvG704S1u9ydzRP5WQRT8b7jU/AqYsv/HspT8J2jI/B421PkZsNL8I7oK8RhoyvSwf+D85fmi+TdUIP2GwNj/A9Jk/at4lv/9aTj/M/qE+i0wLQBKVCL5tLGA+dJb4vpCyDEDURAQ+WuxFP0kQUD+lyFI/MlxGvraJCz6bO+i+48VJP9LKGL5lfpW+grv+vS83yD4S9oE+iufDPXPJtDzTJ52+6LrDPRlY9z1jEu0+LlqcPueeQj73xRY/VpjzPd1yrb7y3ou+OLZZPiEKq77dJG8+hhGTPuSpnj4R+P68fy+3Pjc3Yj536tY+XFqHPkEJiT64Yx++f1M/vwEOcb/VzGe94+ytPnnmer7zfNK+r3b/Pd6IZ76aEms/TYZcP0VHJL+nkV+/rieZv7AszD0Q3cW9/cLEPtJmIj8ik64+n0JTP7tueD3sJxc+ST2pPmGSKD08ybe+ESsqP4d/1z7MYGO+rbC5O05Hijztz8y91QKdvfg4Nz5LlfK9Bn6hPgWIYD9I1Lw+zOFuvnDgMUD7foi81vIlvsWZCz1Q0w+/jU5JvZ2YtT+oU7k9sWK9vhjXBz80zUk/H7Frvw+z+b42RXa/G8Iwvvoi4r8gyKe++pWJvzSRg76KCWi/vuKyvlb9B7/NKoS+C88PPzUg376vtw2/BHs+Pc0Pk7498UG+J8E7Psk9hr0duaQ/ICjCvjr9h77B82U+4XMEv9ckG71I4J8+3ItYPuI5yz7D/pG9ItfhO7IFxT16k8y+3OakPzOkuj4aL5y92rXuvToTLr+SC389/zlzvcmEWL5QnG4+IZbKPrQbpL0bdRe/YOszPi6mpD0gFdI+GUr7vqdhCj+N9Zs+EGixPDo6uT7LfDI+txgGPwJQvD5WnGC+BG7GPjc2aj6FLK+8mS9Ev+/pvT52YEC/sSpyvkLNjD6fOd8+LzUjPjwzcb3cVYW/Q2W8Pfd5P73hv9q9ypb8vK9/NL/IyMs+4eqnvu0CgDzkuQW+7IhrPu7uiT73DSi/wEj7PmOT5D1h080+s78YvyWGFj9VxXw+lx8Bvj/sfb52EDZAafLrPXIokL4M4I0/QHnaPhYHG8DLqIy+tG6pP93JJj0BeeS/s4D8vtEjsT74tPy9IsTSvFC1QL+6oQY/h2OhPR7hqT5iOCi+Z7AuP1eI1j4JvXs+z8kWvyXShT9I5A0/+1I1vmXsu75wBYs/g8AbPl9E1b6Rl8e+cq83P+9Z+Tyo18y+M0HMvtsCTzzZb+K7L4Wcvqi/BT6eYUa+lMtovkFO1j5d6H4+BePUvv9dXD0qaa69KgiCPsErmr7uhzu/ZW4nvryLBT9Mrq6+OGG2PqucqD6FE/897UhEv33TAL/eumq+H9K2PXmI6T0O61096mt/PpcqgL0/gj684U5VPmwiD76pK9q9Qu3VPp1FurxS/he+HMepvvjIQjqq3wE+dbw3vWiGN74qiSM+av1CPeNCjj7Eohw+mWydvt05jL0Eaaa+5VPCO9FA4T6NfZQ8GEQ4Pp32fD48CEU9ob1bvvzxk77VoZK+jJrJvkuniz1anvy9z4luPjJPYb4HlKU9d+KVPfnOTT7Lt6I/y9M2QNlvD735/FO/uPSjP7/pmT8ullw+Nx8JQBpzkj4daZQ9ccKQvUUyGT/lMWc/pGo7P8c57D6tVCg/92SnPh3tVztlowBAw+sePmF3zT8Rqto+jEuLPu27pj/8mPk/1oCRv2ToFcC9w40/5dCnvuHVD7+ly849ow2aPyLinz6PIQi/W8NZP0CA3r4VFUu/dPz8vgYLVb1KM+Y+xtz1PpDle76WCBc9MJW2PuK/EsCauOg+VuVOwF+hGD7yKhc/78DqPVwPxb37vIc9WypBPwkNkj/63V292EJGPnsGZz3fwJ0/oX0kvxInhT5AO0+/jCknvinoor39si2/CFGUP5eNWj8K0XC9uJMHv0EdBL0ndwM+NxANPVH9Ab+WJls/ScmlvqCYVTwTmX0+d1uDv76MC78tLIW+lMLXvuzuLj93CIE/FaCuviiE+Dy+aRe/eCkiv6SX0j6f1J2+dV+6vmjNgT4+wgK/+wDAPjzdib7qc2o/zeKdv8eVqLyfRtC/kU4ov+lkIr58LZM+56VCved+Fz8yj9c+tvrGvop9X74o99O+3ZRxvrYfk7/UErm+Mb5jPGZa3L4m2X6+n3gUvZ+N/z7nsRg/XEcZP0llS77m0os+uuo7P+m/Lz/u2oG7uAciP9jXED/OUiU/q+G9vQ2hQz/9uD8+HsK9Pgq9qr+ebok9m3WyvW9oDL5/n0a/l7HrPku5hz2AFQ6/GTefv5+jgD5BFiM/k7+Fvq45aj8QTdO+PuX1vUVTTDxIObg/AwqWv8SjV7+2/BC/lLITP1AKr74mL5m+eY+sPvm6Wj+Kjsa+GoQov7bbUb6kWWE/rGcSv+sTrL41a6u+a9WVvXQVBj3hClC9O5GGPowWrT5fqSg/lz0oP7xasL6IolS/z98ZP4qayj4vv1u+eDX+vnV0jT65oom9CI9NPmb5ar9Quho/9P4tP2+hgL6gzaw+oFItv7HxTb5cAxK/i9qFv1PzRr07Mu2+VOtEPuOqlj+TBPa+6V0sv5Q7xT6/NsI/yIFMvxn+Nr9cxN49gUoEvrukG78aRu6+ZYVHPqFKob9iaEpAPF2YPl+u3z3cvb8/AauIP+fJhT9jNh8+pk/LP6+poj/jvYE+Lau/PlMQxb6iJpE+ZPyIP7GjFj8yQVU/yIqVP7DL4j+hGrI+w9qQP7jAID8YYVg/8UcoPgi7Dj9dLxA9t3bcPh2MkjzxHV4/SuxwP1C+Tj+k67S+pio4vPPuYT5erw8/iyuaPszmRj5DvWo+/GEvPgD8ZD7ZP5G9e1elPIZqyD5d8CK+gWBQvX0CGT+Gj8g7i+gUvxWsyD4g55O+jiYqPJdgEL6Wb5C+GZO8Ph3FAT6h+MQ8p+AAPx5wj7w0iAc/UI8XPTMlKz7w/x4/jg/7vRV6XL5IG3K/DMhuv8W3or5nDa4+R7oBv7DOxT2MrhC+ONxhPtKua74G0j8+R1qHPqaEcT6OeDo9GczvPRUmCb+AUmm9xL1XvYs0Cb0AUik/u18Dv8IUzb7ufBS9Fk4gPojryT3n6pU+/gP0PiOy9j1ByJq+3SdqvlgbwD4OuXy9+CqRvgClnz46WDs+RpYoPPAHVj71Sky8U0EHQCvberyPViQ93gkQQEO0076sSHu+L04CQK9+xj8ytey+ButBvw6mUz/TZhm9uHLbPoikLT2GGLa+Tj5sv+93fD9mpQc/fouAPvzRzL2qapA+Ns/fPX1U8L1vHgI/FoWrO7qwur76kiC+1Lwjvz6vYT66Uqo99jVMPhsIX7/IGG8/5+fHPr4fT735NBe/Jo7TP4Cloz5CtkQ+cBQYP3uhzr7T2q4+xVutPYmrPz857dG+dj/Zvohhpr5Fz+g+nmNsvnZYSLxul/o8tWktP5uZG78+w6e+qkllvizZpz+njh6/FtvPPR06lT6irQA+1RrkvY2OAL9OjLo+e74qPAE8TT6wzJM+PjaFPKKV+77oViU/gG+su0y5nD4vrMC++dlTv1tjK7+E5JW+Wcqfv3DZBj9cF+c+OqvyviijqD/INy6/7ye4vnBlZj7NHMK+0SAiPnuozD5roMg89NoFP0f1jbzu5B+/2wFWPru+Dz/bE/O+z8QUv/vhw7xMefA+AkrdPfenMT5DwSw8tuCGvyTaIUCJ6EU+hOexvqcTPr7b6Ig9Zrqav3YwZL9rMK49yz5CPnBGB7nQu4K+L2mDPldZgz0azIy+PeT1PiqKoD8fYI6/fEOSP0Cogr8YyeQ+YppVvfHXlD7+NJG9QVosPx8lMb+BCtA+af6LvmkZRT8VQ9o97M6Hvo79gD6RGoa+Ig79vr05U7+fD/s8/NYqvqSIeT6t+X0+RNFrPgWcn71w1Le9q1C3Pdy14TzleEW+dgnhPkkDED2hWwY/35sjvuS2Ir7yjrM9Clbdvvw3aT1Sk/Q7fXz/PcY0E73idwQ+nEGTPpuD2L7N1AG+kT4JPru7Mz+gHpK8yGQCvGqjbT7ct329yYLvPmoFnD3RJ0U+UMgdvg8sV75mCI4+D6iCvmudGb8PGQS/23fdvkHblj56iIq+8jp1vmsEVTv/nEq+pJA3PyK98r45Pg0+mwOBPnFexj4XcZW+6EHhPilqxb5YZ4w+LgP8PsVVAL7Haom+gJuMP4Ai1T5SbwI/CiwTvtaBFD9eTHe97yk7PiTznz5kWNo/nAYQvmmPAT5TuXw+/V2Vvv5eAb7lmMs/PxkQP+X6V7/tFsy9hvhGPrblmj3jrBG+MEclv3Olkj18sL0+9/xvPgghg7/INWM/XqBDvpgPbr41jyS9/77zPlhWkz+82kDA/hLiv5ewtb6QVym+8vJAvu+oJb6hgIo+lFDDPkXNp76KC7M+laClPcmr/T2w7ek96DqHvSxNkj0yxU2/SjeHPZTNKL9q9wM9xh6+v79aeT+674m/7Mi6vpZlIL/VGfq+ox8Ovzy43T61Rpa96SZoPPrKm71rejw+kMxtvw+DcjsRK6i/sJz2PsloBT5EiK09pgcnPqRXDr7mzxG/2FXcvk0v+r4Vjcq+CgoMPl9Brr6jwSQ/k0RsvuUjS75Q2Fe/Ueocv+638j0fcmM+z8BWPu7Bwj06qL++L0YVv02y5L2rSMi9vs8XPgw3jD+xL0u/6HKgP98MuT5j+wu/hFQVPpc31r71hrS+XRNjv2Gq8j6t2Ru/Q9KVPlZVPD7zb7q+tewOP6114Tx2cws/s83XP/eNBj/+/Bq+ZsTuPiEtmT5jmlI/1gSwP7W/LD+Zuq0+TMPlPpaciT+MttS+WdxKPVimzT5KJTS+Lg16vpr3kL4Fvuc9/Q7CvhqeIr3IISY/DKKxPjPTEr/eDlY+BbqWvu9N3DzlK1q+hhidvp1gZz2bfYI+cJmRPs2zEj9GIou+aA4pv5sr1z4kWFC+S869vk5H374v5509CjgdP6GNar0/3hS+azedPiw6FD+qE9M9lTSxvQ0ZTL7Jpek9ajIsPtBybD7NfPM9bT25vkrCN76pVMI+EO+GvTuDzr7iNrc90Z0tPjehPT5uqKS5mm2SPj4x4D6ieze/bgNNvu15tzz3Wrk+knU7v18MMr5T2OQ90TMxvo8TgD5fexS/rkx+PkKdtj3G4+i9CabCPpvBYz6U1lm+FwHUvqKOhr/0A16+enDyPjTvC70CgeW+K+Q5v+T4er4XEuO+RlPjPg9Rub0nmHI+jU2XPm/vhD8JjxU/VIs0PkODyzye/BK/2EFBvxsTqr7/8UG9/nbBvgG8/j9haRG9eY8BPZD9kz6TdIY+WU9tvsbU5T4sLtE+2wA6Pppg+D7xGDg+qSwHvlt9Pz5C8K683/OkPX4/vzsKHR8/MYvOv1w54b0NYYK848YPPuMYkr2R9Nq9TdKGPrIGh72kP7A/Wn2UvhK8/z7yLcI+C6/hviqOaT3Fhco+GpelPlzns78UBS+/qbq5vtWtmD5Jf06+qh8RPSE0sr4tnGo9KrvFPrTQMj57gDI+VZqnvJyrgL5S1uo+GIabvk69mL3Iqe48RYycPmFZcj3wlqA+irahPtYNsb6GSli9YF2VPZnVn71ysI898pJLPk4GZL2qIpC+pJ9evmAStj4I+3I9HNUyP7T+qr4G04k8Is6EPgTpKL4Wt7K+L3R2vWNM1j7gxDa/9lw6PnIbRb33AKQ+SMxCvwxM1z1SFyM/ojXDPkqg8D71DwQ942WvvoFtqzsBnfw7HHuevn/a8TuTLoO+pA95P+elYL7ZQWA+rgF+PmwNCz8JVby8GaJwvZzls70ULRw+dMIKPhe/NT9qtidA5lCbvky+Fb9tcI0+3j6UPgMspL/u4jA9BV/FPodKmjwups67xYCkva7ABT8ybxo+eChiv0OUMz6Rc2E+ASsPPtrUnL+UAlU9FZbdPqnnkr59lCK/PzMBPWzcvT+e/3s+iZzXvu6E/75FpBI/W1ZZPpZdA79NRrQ71lKZP5rvkz40xae+1ZR+vksONru3sLs+kKXSvM18j76ePdW+m2d3vp7pjT4ZpD491C8dvxydoT1G4KK+9PJkPvj2Kr8adJA+e1zHPltHJT74Eg6/QocIvyGYGL5pHhI+IjCSvzvGyL1PZS48/tbwPrWfxz5+Ski9UYwDv65lYb6eTsu9Ut1YvbBOhD7Aaym9uJ3YPl/tuj2MJX2+Eby1vmDg8z4diao8uAOSvkOTGr7jTzi+IU8wPaG0or7Msry+CuTTvrnikr5A6ju+Tm9UvqzkXT7R6+49ErZjveCW6b67FRi9R2yjPgvG8b10a5c9rWNAv68EwL4QmwA/VySPPl83GL+Ad207YzpvvYcoD72gqeY/40U6QMOFmr0TMSO/JYM5P+3UtL40nIW8ACmpP5sWMz+WmGS+4/8GPpaSOT83CF6+geCkPqxlSj1K9ZO9KITxvlGZKz+zyP68fZCJvlbxXL6L+wu91LE5vlHVAr/+NHu+fFkyP/PnSb+HFgm/hqV/voJ/q75CALW+D2KdPn5Ai74tQ5q+1eTKvjFoYj4FFkK/1ei+PpdoFD7kZbE+ybwCP//kfr7qBh873ITOPbKlSD9vbr6+U8kFv7D3jD7bpEc+SEJZPumG/DzkJhU+HLioPm6Ncr9IsJc+TOfavtYBz7yPFu49YyG1vpPFfD5PkUg+/+qCvSdw1b58Pka+m3HwPbvc9j6sHVY/QqQ6vfI+JL9hBIy+SwscvmIwvrzqbwO+XOukPTs6JD5YRiO+nyanvqKWsz3eKCK+Ro2HPkXCsb5mbCu/Yr+NPrFVhb2nNsy+tmQKvzFmgz30Bwg9z4+OPtm0ZL4Dxvw3rPefPYvcPD/0ElG+1msiPj0tmbwuQNs8H1maPlGBhz3mWY++2cUBv9sGNUBw7bw8hsMOvgZSH75dEQC/P7ArP71iOL/ycRY/zfm0vsiRgT9DxAu/T0bvPogSFD/7VRU9BGE5P9x9eD6oNZ8+6BCyPr58wT515znA";
