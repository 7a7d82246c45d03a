/**
 * Weights of the trained predictors, as base64 of little-endian 32-bit floats, with where they come from and their areas
 * under the curve of precision over recall on unseen streams. Written by `deno task train`, not by hand.
 */
export const TRAINED = {
  "seed": 1,
  "recipe":
    "500 streams of 60 s on each training path of bench/predict_data.ts, 1979523 reports; logistic: 8 epochs; LSTM: 8 epochs, 12 streams side by side, gradients over 64 steps",
  "scores": {
    "training: losses": {
      "logistic": 0.453,
      "lstm": 0.5022,
    },
    "training: congestion": {
      "logistic": 0.6252,
      "lstm": 0.6558,
    },
    "training: both": {
      "logistic": 0.7532,
      "lstm": 0.7674,
    },
    "training: random": {
      "logistic": 0.1312,
      "lstm": 0.148,
    },
    "short bursts": {
      "logistic": 0.2761,
      "lstm": 0.3022,
    },
    "long bursts": {
      "logistic": 0.0823,
      "lstm": 0.0978,
    },
    "lossy spells": {
      "logistic": 0.6655,
      "lstm": 0.6895,
    },
    "congestion": {
      "logistic": 0.6695,
      "lstm": 0.7074,
    },
    "fading": {
      "logistic": 0.1804,
      "lstm": 0.1933,
    },
    "handover": {
      "logistic": 0.1353,
      "lstm": 0.1779,
    },
    "mixed": {
      "logistic": 0.5149,
      "lstm": 0.5374,
    },
  },
  "check": {
    "logistic": {
      "prArea": 0.4496,
      "fingerprint": 0.43379302999000346,
    },
    "lstm": {
      "prArea": 0.4124,
      "fingerprint": 0.38182073617172235,
    },
  },
};
export const LOGISTIC_WEIGHTS =
  "tAnyPZB4ir6m77M/tDGPPzBclj+XlMm+GYrSPxGfcT482k1AURIIwIlNbb8M27u9iCNEv9ep0T8HJRA/8GakvtD8kUD9hr6/3M4Bv83NGL6qW6w9Yj+Dv1Asir7XyRy+okmSwA==";
export const LSTM_WEIGHTS =
  "0YgPPzGTS77mRse/ZqHcv3VvHj8TLHK+7cHnviGTPL9M0NM8ItQWPsGf+jzP4qM9mMqqv2fC470qkxO/CSUOvlnzZ7+mBJk+GmFXvxorFz4UdFg+0+DaPVBpir4eR8E+9pfHvlMEwT7IK4S/ua5kvvsf576Tu0w/0K6bvSqREL7h47w+Xmz7Pu/Przuabrg+iY1GPw32tb0wPQO+sfHJvQZII76C89E9Na8PP9QZqT2mnJI/Eml0Pn12170GGte9g8MEP6o+c78rN0E+Ko+OvjDTPT3+Cqo/f/X/PiHSgT4tNm6+NkobvjksID61l3Y+/JHUPsFDrz6xbrs+BCjRvEAaw74xbe89me09vyeI+Lxa6Re/3DNHvlRrXD1suRk81jkGP9vnRL8bKzw+O0STvhsUob/WpC29TGFHvvLEur2nLVK/OgW5PW47/j3osSE+R+h3vjMvcr6dZ24+1Mznvqm9cL6fkHC/mCHrPTphPb+fzSG/AjpUP1pcAr9nx3A+BBE4v+0bF0DMhVy92gsIvkZzmT/RvJU/YlW8PyFLrL92ZiM/+oTJPtvJMT+9Pla/cflev695Dj9W99c+VkKDPj2AD7x5dWs+du29P8gZ/r68lCw+YJA0Pk/U6T79/ei+q0UwPwEtXbybxFQ+0mW9vgexs792n3g/1x/qPpkdp71Mpcs+lCa6P1EDiz92xwa/elSZv9yc/DxNTCU+5VnsPkaGVD/iOka/n5IHv+plc7+IbiBAZvyrvyJZob10ADS8yEUAPycCF77eMEm/0slivdrgez4VgDQ+j6yYv/3aFj+rzYS/whckvzXNf765O6A92ZREv1UTOD6NhJC96VvDPmLBzz/UFxG/Oa/ZPh2J2rxzWVW/ClNIP/y+EL/FLBI+Uxn4v9QN3T9GMgA+0OHPvio76D7Ldhq/pjSDPiP/Aj6EUhPAZ1uFP96uBb063pc+pvpiveD9BT5KlCC+fw+cvuY0DT+PcFo/iBWpPvHDvrvS2yQ/7gw/vlx/kb7up+A91Iesv+AcVz+bbAU+SYc1vN7Ttr8PRCdA/H5UPoVuPT4ojpy/EfCvPyopgr//zRW9G6sHwG41vT5CyLa/1wssP/YRZL7BZzy+IXubPsDTtz6ORgBAG76IP66d1r8z2Q+/e1pwvjulmz6rwNu+IyFJvjgRTj/7JVe+87OIP+JYQ75oJmS/L1ELP4LOS7+ep4e/RJOPv4Bv4z9D3Wk/xhiUPWjQ3b/VMz0/yXKWPv7EPj/wo0s/v1f7vdK/jj75J/e9ULXCvzU+mz+VJrc8lgqsvS/kzj77tsc+WTmsP0GOj74rAAo+VyO5vfmA3L4U904+wAiHv99QYj8Drjw+CVyhPm4aJr6FldG9WjWdv6v2rbwN4QxAbvA9P+Azljxp/hm/kRKcPng5MD5+ec6+w35CPoLNqD9ND/i/tAtOv0pMfT5j80w/qnGcvwzXIb6vMOA7pQk4vzMQpD+Jy7m9mzakvmNIO7+le8Q/Bo8SP9kPkb5R92U/LYKSPjN1Hb2VRpi+ZH3YPmheMb4F0au8SrAuv58+fr9NiBI/6ltyvirwej4q6Ni/MjhMQGU7ZT0M3IU+6WrPP8Tg7D1p0wI/UyMpwL3zOz9Y0aO/jzWbPmgjTz3sEJ0+PvDXvu1Gn76NuYC+x2L6PUluND7AgeC99ljNv5GCzz9649m+rQNmvjqXjL68wx0/2U6bwAvQur8xdng/5WaTvhL9Cr9mB4o+2wgXvpdn175EdYc81aZGP4kaBb51vY0/hY8svywEiD+4lII+hKkSv+X3Xb7gOTm/lFqePF8YOUCMAf89PX0CQF9EEz4kjMG+vKrCPnI5i75VvSO+/G+gvO43Sz80/o4/dpcYP3Fbjb/wjcq+eD7MPsPm7z7dZIc/XntCPGSRUT+aZwq9Z8IwPzO0qL4lD52+LdHLvglENT9+syu/IWZiPvE6NbwINsk9TAcqP0qeG79b+IM9hhGAOyieZD+ATWi+bmbwPbCfs75KNoM9iycQP2ZYVT7DhNc+Sqdxv11BQj5Pf5s+AMMKQNZ6CD6Jt5g+U7JIPo+1Rr70YQI/Ckumv5R9QL5kVmI9nSBqvvD12T5zXcc+ae1kPvtlHUCeXF0/hkRaPi0yBcAhK2O+qOi3v4NVKL8gMB7Ad/bPvSRDo78Tdlu+9TkGPnhK+L4A8EG+u7iLP/17cT/9tkw/GcaFv0utUEALclY+z7LYvoAHUT76UJU/jnHcvhjgJ8DNrHG/hEcBQGKz575WjqG/VFZovi6cdb5hF0w/+G40v6wFdD75QNW9sfH3PntzTL8RjC8/i1IBv/aL2L6AEaM+Vlcpv7NptL4sF0W/BaWxPrrq0T3ASbK+v2Q1PzXNKr9wvIc/SBoCv6YjT78e8Ic/DF68PiHCF7+kUM4/i7SdvqAmuT/ERTq+O5Zqv0uPiDzFK46+rr77PZrV3r4QIxm/j8J2vj3uGz+RcO48/vIQvy+zEb4BGja+yQi2P3qUnL0o5ic/KhRpvt5WBr+DD/Q9cB0gv3yAaT75bb2+Drcyvwgpmb1Alig9Eodiv0JiEr+xWjm+2wttvnVxYL6XwI69VRYsPyKEgj2e3Lu/CP5CP8BZCL3FmKM+BAhcP5auKj9Y/6o/JZYYv+aivD6zUvs/hnP2Po+9sL5xbqc+DXz0PuYuFb7c9xzA21j1vUiIiT1tJlO+nhGRv4bVuz7hlyW/wzW7vlf1M76DJVS/yodCvnx0Cz5MoEI+ZbXjPT7Wvr+jbd6/w1KZPj5K6T4r8L2/YmSsvz2wTT8su4E9RkaBvqp7zL6URWK+ePdlvm7QOT7gTN8+3ObwvBvylj3q5GS9423EPrux0zwzIwW/cx8nvnFMs74iqi++sszXvM2tAr9dudU+099EvnDZlT+ZzS++Bl0ZvUYOGD9uYCo/UqwQPxZMRD5kwr09uvsnv4eCb7zoAAo/xTmVPuRFn7589PK+pcRFPuf3krza2om+yd0Zv3wwvT7FUA09PxWXvhPlM7/WlhS/q0/BvmjoDz+rSq8+woDNPgbIuD7qjpU/h0WJPgjPnj4jRrm9Bngivq26cT7EXJO9LNM3PhukYb9kaKe+ptFxPRwK1T5MthE/WpEUv445Nrs0FiK+v2YfPk6FUz/DtQu/t52QPsgcD79awYm+O+EKv14aIT7qWj++qmQiQIRFXz5h6oM+gWoavO84yz+RE4s+xJnbP7HaAL9+016+VsejPXKbM70wUZ0/tqSkvs1RSz3ENS8/CT8VPwv8PT6dfC1AhzddPtAqBUBxrjK+cfCYPqXkEkDRGec/ENBRwExyDsCj9uE/RGkGv86JO78iYaS7VSnePgTJTD8peYG+cK6UP2e6Qb/dUpw/Xx1Ev2mArT/kcBO/e6iQvm/2Cr+vaOe+rwfbvcCYOz99vL++CVervum8W761tO0/axRevz8jSj/EloS/iXm2v4J7Ir5uM4G/5ghrv9kziD5NgWu/ZnVnP3RDnL+2vue+hxiMvqKwkL4XiTO/3pRVP5CbNr4p6D69hlrdPu7WaT/bdho+Esu9vqbPur7NJlw/oCaDP/gc6L07jra+guRGPx5ufz9DuAW/Xm7cPu0lJb9qM8m+rM9XvlMSYL8KmcC+B2pFPUpWIj/eLVM+aOP1PwD7jz7NNwU/l1FZvliDiL/Ou8E+J5RYwEbwBj9LkIO9flrWvu1//D3NcYG9Wd8pP/F4Fz9NVwg/3ANyvxGTXT+PST2/xjU3PlVOtj9Diu8+z4UbvzjiEL5JXJA/Z5vivnTukz6HZFw8w5KqPdkzZT+sH5W+Ss2IPpXZMD+lY3W+QGP0PmK7IT13WhE/g/ziP1Km4b6G2ai+9jfGPQuLC7+JC52+ilvRPnapJz68TKu+/Dwfvzz0/71uBNk8RBHDviUoyL46tiE+VrsYv8SdeD8Z4rM+X/JpPL5Vaz5BFbA+Huv5vYMtlb4Paz6+xRPzP2nvkz1w2fA9aQbMPl/JKD3hsBw/sEULvrUiTb9g1Ek/pxQMPk6bQD+R6wa/0xCqv2Bqez71y+S+c8WzvWz1Cb/HT6m9o0K1PR2l5L6bAaK/dt7wPgLeyz2PrSu/FAOevv4WNz/zChY/Sao9Pn2Lyj4bu3Y/9MeNvG096b5/74S+G0xxvVXcFT4jys++4MUZv54KDL9Y8WO97OvVPvG1jb82wBk+kkQJvtGBVT9k4va9FevRPsiuk76YG68+X7yMvv8N6b4NViw+2Z+Kvh36I7+MKQtAyLFkPgvmiL5oH4k+CcthP4+Bxz6SY7s/yWSEPlq4zT6Fvx+9jfuVP+oJ9j7+hf0++wODPkAtwz6b76Y/Zez+PvDM/T5xZd68BcGkPxVTsr4rWgW+fLiDP4TfrT9LqPO+l7duvzO/nT22xl8+d1fvPaZ8oz3/bzg+yFalPbCXg76rYAG/EvfvvnR3rj4N/Ve+a/edP7tWG76Yoc8+2nV8Px51Sz/RBYQ9svGWP/jnMz7Tzlo/2TaevjjrOr2clYy/vMIwP8rhsb5eV3q/sqKVP0S0K7+s/Z++lhN7PnnB+L57e3c/PiPuvhW1dz71vos97j4SvxGobr0ylqA/qPkyP5sLsjzY1JQ/S2alvSf1576JxUK/JvYLv1fPeb+UslO/c/5dv0iMGz5h8hU/OS26PhcWLD4MMhO/PjT4vuyBQj4Q0gW/GgH6vne5zT3RQr899UINP5czrb5eeVg/NrjqvlP0Vr40fAQ/BBHuPnKi0j9Zhmy+ez7fPnrCUjzeVVO/1ownv8r9xz7TZd29643LP49pir4tjRO/Qo98PzE/jb3T8H091NTWP0qZwj72xwo+byQLv8bd6j6ogW0+rvH5PhmPrz3c5H2+yOKkvvEZcb5fP4Y+KPBNP0S/KD72lCq+606kvhLOGT6RBso+4ciJOz9grz7hMQk9BS6Uvz+rED+WKiG/vR9Jvi45nr8jPpQ/MT0mPzl/Xr0QvMq/1MKEPxMaAz4M4Wu+jLEgP4FsRL/Amhw+8gdsPsdjGL13Esq+wog/vV2woD5UVgW/uGa1PfWhED9CJgO/4YjOvdV2Xr2kWG283J2EvWUEhb8VS+U+CK4nP8L5dL7Hkts9gxqjvgKFh76FykA9kgS9PyNfc79lXpC9b+fAPqs50D0hr1A+WBGWvkOtHD4rPiO+PHEDv3Pper8KSwO+ecGIP0jder8Ot8I+IUViPsIbl7/1OGs/fpwevZgKPL4EVky/HzQVPnot2r5lWHA+D4sBPtLky71u5e++4qvtPMYUbD8eeEy+g8rFvZuqPT5y1Ii/m83FPi2eEr92x/m+J6O/vzaLOEBeoyA9+s9KvoS9qLo1ZBw/v/VLPvB8lr+Zrdc+/EawPnmzAT8oZxS/8mYRv1fZUb6KomK+QJQXP0SP9r4JfqO/Y1svPwc8mT4iPgm/ZjmCPl3Ovj4Io0++iXd6PzLYh74sewi/QcTIPpHhmb2wSio/S9DTvW/LL750fFG/mlLDPpKASL6sVtW+czbIvucJ+z79vxu+u2aSPoBZ+T683yO+LEfxO3gJOT7N+rM9W6KqvhR9Pr5+Pdo+oQujP2wYLb5U+pC8Hcg9vxQXjz/zqnq/rnF5vWZfFT/NYPQ+oU+lPgc9B74b+VC/nfYiv+cl/zyevKO+0iSVPlPjAj9pr1e/vLFXvkq7yj7QlyS/AzkePQsVab5Htv8+MYvevgMjDD/9u4g9q//LvomVIb9c7+U+/mpqPjs0Dr8jadO+AKgJPQheEr9Lv+i7LBIBPwnp0zq1EgE+OWElPwmiWr8Buuq97a24PqTgmz1PkQo/oOxbPvwPQT5odh0/4E6Hvhf29z4HS50+AY/2PdgkFr9vmw1AxAuTvslnOjyASZQ+f7CWv9JOjL9A4h0/vEyfPykiwr6izPy+xltnP/Th2T70VZe+p3YnvU9PGL0iapI+OFkRvaTZ2z82iOQ+uJIMv3QSEL83RAE/dbH7PvKGDz6ZGiy+UThiv90+Rj78HEw9RAFzPoQ4rL6/xoc/6zVXvymY3b660uE7EBISvtWOg77Peyg8QZW9vdsSRL6PP86+IHY7Pw+w8bxfQyW/05uSvuC5377FVSu/O3xavgIaVr59QSk+PBD6PnIpmb4IsMy+ScjqPQf4JL5i5zq9nEocvSJHdT61Rea+E562PfNGaD8p87q+tTzBvbgrij4BCqM/iAQWPAlwFr4TKQU/5rOFPvbmbb/9fb29JyV5vrn0vr15m1+/zHT8vhNLlr2b1Ys+m3jtvqIIUr5nCqw80+0pv+PTKD9phaq+2y6pvjPBi7qmkiy/PRDzPd7h9D69U38/sL/fvh39H7+mPm49lNwuPvmmHjuOqZe+PhQOP/A3fz5RswW/3h+oPbTvg7/Bvcy+3d7SPxpeBL4q9AK+28o8P1b97z7EICU/TFNHP7W3aT9NfRM/r+P/PpvJQD8YWRy/D142v33KI78vnLu+rnOvvxMOqr5Dm4C/abT5PtL0Bb+ikam+uW6Hv1S3ub5lmdM9y7ILv8L6Hj43TUO+9zmCvr+JgT0cohm+RG/JPsm7xb7mgOS+bFWGvxpRbj+WtB+/eQc1vwuMb79bxo6+uLKDP0BmCz4iNc0+nnOHPqPELL9YHlq//rsDvyZN1T38/rs+OHhBvi/4kr1KNsM+670Bv3+pKzv6ZAu/rE4nvhFgkb6TMVA8HHsPvgEcGD/iac2+RK2QPciz2D0EJkW/nzp0vhHEsj1su6K8rlXTvtVfzj1LJvQ+S7YRvizBij71mEa/TdKqvBZSW767hwi/5fkeP4vhebz9xl++x0bwvhUFg79rR7C+bT4dv7S9zb5ftI4+tSp8PvqIQz8fol6/h9yyPgpuej4waCc/ym/sPmJrjj/KLWg/43ChPoxmJD/I+O++ZQMhvcJ6NL7A5I89zcb2vuVm9D8xreC+3WkRvEOX4D7MkME/Tn6WP/Ev7D+B0mQ/CX1GP+90gz+T9RY/vHVmv6rK9r3G6z8+N+eHPP0zFj9uByi/oEEEvzr3SD9DD8g99a2zPVPyWD9r25g+cu3VP0f6nL/35fs+HMIqP6Z5Tr/RJM0+ZrNIP1OjGr5effM/eXNEPm+Tqz7lWMc93Y8QvzGPOb9MPwo/HhgzvlkgVD529W+++fLwPW1Gh7sRxJ4/Agb7PvnKIr1MV7E+TA1/P622p78DwZC/DaAjPh6WCD9elJQ/8xEBP0HAUb8QG3Q/bF6Nv3E4ez7mrns9qCd7vxgKgz8/w4A/5tm8vj5F6D5gpMc+ScfnvjOogL7XuZ+/+sctP5y13T5gjXq+Mq5Yv0paIj+oGIK/Gs8GP+27AL/qEyI/svEVv/Q2fj6ZAj2/QiqKvgG2Bz9t9t++O1f6vf8XSr4s7Ao9DqC9vo21Eb+tJW4+UNY2PjxeHL+VoYG+fGFzP4JmtD7uhmE9S7Ecv97xh743Jya+IKI6PimEIb8nGhZAGUQWPxiPw75stwjA2DphwJw0J8CE6ZM/FaZEvxlXEcAm32G/xlJ6vu1oKj6wGb69BArIvsWWgT6E3g+/5bvqPMESWL8u4iU/YDPAvMbtir9Eu9m/gv0JPPOtNT8vFBg/fhpuv9VRNr+JB3u/GBcXv00IS7+/BgO8Snzsv41tdr5FQ/g+S+6VPowdSL9T5ng/Tj8xP9Wver9mu/k+X01bvowBLzx7ars9i5/WvjNqAD3Nz5E84sFnvSK2WL8zclA/rZ+YPraYVD6csdO+whjEv50Qh76yCNA+qG/5vyCdiD+Ch4A/siijvTcWjz/VW36/LOxVv8/C0L1zfrW9+ACpvte+Gr1iWKg+GQmKPyMKvb5efgy/zpYRv1Xy2D+5AYM+BaA7P2w9/jw39bs/PTHTvUKygb7MRF++156Kv7gZtr6HBuU9lfkUv4Efvb/Fat4+v3+Xvn+cA78z6r68Ouc3voGIrL5BQRg/DZ6gPgBggL8drx+/k8P3PsMwvL/+uG69MeSNvktuzL04FGm/0zs8QNpqCz94Oac7pcTwP0Zwez86ICs/OiWuP+xNvT+q3jI/FMv2PmhB/D7834q/UHaRvlZaoT0k9Bu+MReRvenfzL7lkbc/O1uQvwfn1b5SbBi9NWNlPiaW0r0PpS+/JxPUPtYW+77xZSK/Z1Apv0wdSz9EVvs+oZisPUIGQL+wYZU/aj7APwNalj6AExXAPRuxP0GQgT898X6+Ha5SP5W6677OF6i+CLaIvVVa2z9z/hW/P80Zv2lohb5pnT6+k8QIP5mUhz5EpF098j/9P6iSIr8aAH6/QNnZPXtXv79LIidA1nhJP8JTPD7/tym+m4W9PRaABr8ameW+fShyP97R9b5+wOo+vZUIP/36gb/kasw7AzQev1zcCr4POlw+FDQEv3siX7/uQ8c9z2GTPm/1i79UNdm+tZrwvbCez78Mjh8/NUWRPokmpL7oLKG9tsHEPOqfCz9eYKo9eBmgP5ZKoL41oZU+c0e3PmB4LUCqhqa/HIlTv+nbiz6gX7C/hUZGP/fvuz585DG/XZz2v9uqZUB+4cY+hv/7vUAk5r74akG/3/Vov/h8Rb96um0/nhpGvxiufj8Wc7u9+4nBPphvpT0Gwlm+V4uaPjnIRD5JayY/Y2yuP1MNGj9hFUPA";
