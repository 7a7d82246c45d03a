/**
 * Weights of the trained predictors, as base64 of little-endian 32-bit floats, with where they come from and their areas
 * under the curve of precision over recall on unseen streams. Written by `deno task train`, not by hand.
 */
export const TRAINED = {
  "seed": 1,
  "recipe":
    "500 streams of 60 s on each training path of bench/predict_data.ts, 1995277 reports; logistic: 8 epochs; LSTM: 8 epochs, 12 streams side by side, gradients over 64 steps",
  "scores": {
    "training: losses": {
      "logistic": 0.4819,
      "lstm": 0.5405,
    },
    "training: congestion": {
      "logistic": 0.6396,
      "lstm": 0.6628,
    },
    "training: both": {
      "logistic": 0.5963,
      "lstm": 0.6003,
    },
    "training: random": {
      "logistic": 0.1719,
      "lstm": 0.1654,
    },
    "short bursts": {
      "logistic": 0.2577,
      "lstm": 0.2704,
    },
    "long bursts": {
      "logistic": 0.0723,
      "lstm": 0.0733,
    },
    "lossy spells": {
      "logistic": 0.8063,
      "lstm": 0.8158,
    },
    "congestion": {
      "logistic": 0.7583,
      "lstm": 0.7525,
    },
    "fading": {
      "logistic": 0.1583,
      "lstm": 0.1689,
    },
    "handover": {
      "logistic": 0.1561,
      "lstm": 0.1823,
    },
    "mixed": {
      "logistic": 0.4679,
      "lstm": 0.4699,
    },
  },
  "check": {
    "logistic": 0.5305,
    "lstm": 0.5464,
  },
};
export const LOGISTIC_WEIGHTS =
  "czcsPncor776C8A/+RuTP+oDlz9s7tu+3jjXP2o0QD6RwVdAB6MPwFEdcb8r9mi+lxtev+/4yj/4oA4/79GGvSwgjkBF6aK/ASsPv8IZTb4007s9lrFmv2qKrb4f9Ke9n3uTwA==";
export const LSTM_WEIGHTS =
  "3bZ6Ptfh+j6AcR+/+OV1v+18lj0zBFU+qax5Pjz1274HRzW/yxHlvSL8AL9oDDE+Z5ddv+MDVz+hKgu/+ir/vnSbjr/b4FM+9mZKv3Ysjz0u6Bi/8wRQPvSyOL+FssA+cPTRvg/tGz8yGGG/ahK+PPS2hT8HD60+YXvrvrnOBT01xlg+RtMIPko73b2UbdY+laFQP2LFqj2+Ip2+157zPT4Rgb0LQuA+yyzaPr+1gz6GY40/TVJrPzPzk75QeTs/SfjvPgu9vT5TkEg+rjwVvqE2uz+DBNQ+zv22vRsikT4afS6/cuJTPgeOpT7bUKK9M5SwPkstgj7lW4++MtwTvgCOwb6A0qi+nbx/vfbvib13sju/Ac6APZVl0T3rDXG+LUmIvqjcLb967rU8taXjvSpOP78+hIE+60HtviMxSz5OajK/0JAVv4DTtb7J6Ls9cC7pvvMg6D2ViAw/M4U2v4AUbj0ouCW/q4cWPjoTVL8uewG/Gt1DPv8xJ76qkzO8/5vAvj+iE0DTS1K+g1HiPkzzvT/BlJE/4W38Py6MtL8r600/j47uPlGNgz/i7jO/0Hq2vpvMCj+jw0A/KLyxvWozvT9hF0U/SGPfP3ZuSr+nyiY/9cijPrd/az9688m+V6xoPovBnj6CssA/3kyuvvb5oL91L6U/8TxeP9/QZb2xXjE+PTL8P9NCcT9I0Bi/Q8riv7hFJT84SnQ8QyjnPpWt+D8RMH2+xTf+PncXGb8ARzM+rUHKvvS7vb/a16W+fBcAwH6QWT9UmUe+smatPRuqNr/11pw9jmW4vlZuJz/VMwm/+Yk9vksajb8Jfnc9z8cTv0u6XT6lIYs+fYhUPsjDyTwPOnY/fKohvkIazbyW0+E/5Z95v9GmGb/0GYq+3mbmPqFPsr7yCzy/V0rAvqqUwT8ofOm+XMgavu3+K7727uO/mkxIPyuzJD/WMqE+BQyrPxTZmb7k9+W+3W0Wvqy7Fz+xjSk/vgKEPpJFG75fPgpAswZMv4VdV79tOrC+ROSWv81jIT/TGcO8iH95Pm5U7b+RskVAWhgBP5sMDT87+Pq//cLxvgQpqL87lH0/dfvMv7i7Or+8rCu/ipkkP/P3ez769RQ/y9sFP5Nr9L6M9WW/TZ29PU7drL5T5x4/5VIDvl4i8j4iyuq9DLVRvwkbeL6bRlE/mWYQP8VlF7+VXai/5scnPuJ2hL9AWB6+Q3jmv9idPD9gYPm9LcjhPpr/0L5OnK0/NHWRPsCtCb16BTo+Q0IUPy6J8r2U4ui+Id/KPoVU/r6u792+0wVKPuIXvL+SyRc/etPzPhCrGT7RYVY/j7+PPnMq8DtEo0g+dbRLvWjlpT7oZPI9KfXsPsVF8b1ef50+xDPRvi2gB79BW8m/GY0Dv1oUQb+6+ty8NHXIPE4AaD9U0Ok+nswtv/KfAUD/SJW+KWlyvvOAlj5xfpw/GRynvi2ncL7+SGU+c8Civ6iPLD8z+M++z4kvPYdtmT+5oB2/dSJdvYbdDL86Y0e/kD8av/HvSb3yVZu+QJmvPwxomL8q3ga/zyrPvPVKqD7KD+W9bVpvPfVlBb89d5a/9qxMQCdrlj1OIcU+UVRdvrhfdL+riIe/VcL8vzXoUL8b7Ay/XVGovvCQiL97Sq2+8e3dPNcv6L5UNuO+EmONvypK5T4yLGW/FijrvoDkFT0y4+W+yT+wv9r2mD4EQw8/Hn8fvyzAkL99bRk+1nXMvrdPWL7VFKy9ScGoPXnXOD8pqwS/UcCUPezUOD44pcW9ptGbvuoqTL5tfzM+PCpqvmI8Q75J1By/6Ue3viZ6qb6foiM9DzysPRifrj69WGA9Mp2kPi77776B8Hk+3U+BPztC6D7Ofjg/UG+cPuxAHECKAv891wLePiADwz745im/RaE8viqwtzyV/Wm++FkgQNUWvDtge9s+gVsKPpCkSj/u39O/0c0CPjCMGz4qc5m+AW1tP8CE5b5rjwS/cjnKvm8SmD66eAG+gXDhPQpTCr5Vtg4+xXE3PrmqDT5X2Q6/IPGZPsYgwT0G5C+/sdm1vs+7Er8X6Qm/DjSXPrN+U79fsqY+liWmPuzuDb9oP3i/nGFCv0hlub2AAZw+a3syPvrFMEDbnjI+9m66Pqlnxr9sc86/0tHkv3Fk1b+fSKy/Yo5cv2ceab8c5w07E73oPuU27D37XjM/EfOAP00Tvz+bh3k+Pgn+P9E2DkA3HmA+tjyyvf17ij+X7J4/Iw1ivwyXBcDR8Se/oeWyP+9hg77pWi2//c75vaPyMj5H1Uu+uAdXv6X3dj5O0zW8SlkfPtPSRr+mas0+yjG2PPlCeb+dLK89aic5v9aWB7wEtSw+IVArPx/L6T6JDye/IsigP6sdTL8vEbA/cdJuvuuQBL/xGmQ+SJpZPj6xGr9itkQ/IPqJvbFfvzwU4xK9n5/jvqiDh7zEGwi+JlTrPl71e77Mfw+/7zZCv0239L1Oh0W/3D+/viLaO7/he8m+Hr2Cv19xPL6KUzW/oK71PfYQ2L4ZYKG9bP4/v/Bz3Du7uCK+g2/HvrYhgT5FfCo+lhrjvk+swT5nnfM+tVaUPsHl4b6tloq+Hh/Gvo3wgD91lqm/bqaHP9CK3r5pibM8f79uPgxZEb9+lNA779NuPS9hLT723Q5AI/9kPg6A8DwVPac+iGyFPUd+0T4YZ96/3V1bPzw+0r/2oBY+vxSKPkJSsz3XZZW/s4Hzvmil2r6WTXg+u2yNv2FNNL8+p8C/vYSQP4sVf79QUgc/sEq5vuix4T//1G/AdpkTwASjFEDDSgI/rIX4vmyZFT69wMC+6CwSPzw52b4LE8m+ogQRPkE3Dj+0+4W/KvOOvsvkJD9nBlm+sk+cvhyACz4JeqO+f+4Fv84aSD4za7A94VkWP+wdnj7Lqn2/Lxn4vnbWaj/r9jK+Ex+nPtEV1T6upAI/tipJO3f9gz4dDwfAWl7XvoEZmj5HWZu+6pfSP4i7gzzHHs4/5cj8POgzaz8cG+k+C33fPxodjb8tg7E/ALJ2vtMw47+RBNG936M7v2FHrr7LCRM+XVRpPxnlrT4V3zW9TwqCPk2erb2ulKk+4QkMvntQpb6ptng+77ojv9RavLx/jEw/XvNBv8ZyhD4hxKW9l3NnPjaebT8pFbs+mHWLPhEy/L4XDka/ZD1kvpuX7j6VywI/X4oXQA91xD6W0U49ShGPP3hlnz+mcR0/kacVQAn1E7/8pkG/6xkvvir2L742mE4/UkT+vQ6aBj9W75k/e7xiQCCEQT+wo2NA4I1GPoGxtz7qO7G9zNRNPc8+AUD+Is4/49qFwBTCDMD6WPk/TA6dPnSf075IeU8+2qF+Posfej8NoxS+saO0P0+pqL4swYc+ZWecv5XMrD5477W917CTvwPGvr5oN3q/ec4uvksRub+yKA6/oMiVv4KxOb7V/NY+j8yxv73C1T8FySK/J1KKv1lbFL/P8Ym/GzSgvzJ4TD/IXP28R+09P+bjar9fGVm99a8HvVqtiL1i+zG/nWaNP0Pkb79MHu8+97Ukv/5s4j82kNs9lM74Pm9CsD5r4U2/9Q1BvjbleL8JPKE/f1ykPS1LBT/PEyK/MILBPtfVCz8LYgy+LkRAPo+h1b53Rru/6gOSPfVfbb8qDIs/LWUzPpVEO70j7hs/0KrjvY76Xb0MsYA/MXUMwJxIw75Eyik/RRYsv+c67T75VJc/hr4RPzeUTj9jaTc/4Q/XvsV/Dj6ynde984d2wCpBDj835Gc+2cgHPgNbnL8cuYo/Sl43v859pz1C6aq8CJcrP5WNOL/n/T+9byTkvcgTKj9rVH+/1o6uPiS3Db+pZJA+sTaNv/jEGr+Nm2+/fG1+PdDaG7+bV9u9zuq3vl8SFzzKrUG/dnd7voS22T77lRK9GiBKvyAeDb9ARgo/6VoPvpcByTwqXSK/UXnYvpqgCb/qrUw/w28SPw8fez5wjS6/4NgMv2n2Bb/zZAA+KgkqvqGNI7/8AbY+FhzuPkIDGb8Kswy+C2tTvzGTLL/gH4m/XpsvPxDvOD+4/z8+rVVVPwDsuz6Is5U/N801P8lNvD6yE4G+JX5qP4bNfz+iBBa+urZ8P+C6/T83KV0/0DiGPj+FLj9WCEc/MPhVP7vzWr6awSS/hMXpPN9qh71l7IS+JIhaP8Yygb9WXEy/u77Lvmkd8j8RZTQ/2TttPwBlgz+juoQ/mwz9PTFX5L6RIzI+8WpqP3dT3Tw/dFM/494kPoMec79QkBpAHCTgPAvYTb7dRPO//e2LPtmvDD/6yAC/sMVdv/ywbD9i4Ao/OyfZvvV+ab+fBjg/52hmvrs8h70Wsyo/tHslvVdE7T6A126974u5vrNGnj7Xfxu/E1TbvX60hz7OmVc/uOPEPnG7WT4ho6u+KpyQP/YiOz8x82a/5IXHv9duUD8fqfk+ARjtPb3IX78AHZo/YmsJP+knET8M9oO+vQDEvXNGkD60BQq9JWDUPuQJx748eZs+wQ8gP/78Rb/6ctY+OwopP8XDMD45/uQ9KbchPxEmCb+vLIi8KPvWPxWXmT72KeE+Rgc6P7dGtL7MdpS9sQEAvyqI+b6b2jS/HKs1Pwoq6j2ggOY+I1KMvhlL5T64ba29KkkJv76OSz6yRoi+o+MKv6OjHzy63zk/xR0cv1Yh4L76Ehq+y35+v8Nl0j4XnBQ+m0qfvsXcYD85OCa/zC5IvlU3Dr8d4Ie9ZIHtPdlXSj940Em///iUP/Xv6L6Ipkq/TZXYvREIqD4f/yc+ctl/votC8jtDvLO/8sssQGHokz5hFzm+9KUmQKSPfb644Ds+2TMcQCXt3z+nKma/3DYNvxwc4D1baJi9+R86PPtYer6Js969MlqmvxxaGb93zoe/nrlYPiqkB70mXb2+q4y/v+gLPb5Ovi8/9w5mvyutkr6E5eW+kVrGvg2R/r0CZQa/9dFXPZGmZr9Ld6I/1kewPXh5CD+qJ5W//QLAP6sM9z3/6068JqR1vmfYrz5nKzQ/r3u5PBnIVL8xSSU+139Pv7od/r7tW6a/1rGMP7nEpT18efW9BXITv0HulD+AurE8NGtivWGuNT6pvzo/+4JIP2WLwj4vfsk+pJxWvwgAGL9XkoI+lAOFP4uVrb90bJG+ggSJvifywj/WU9u/ZdbTvo8MSb4NQZs+AbWpvitolb5HR6q+zYzbP966cb+VBEA+EOl9vvW3GL9N1Pu8qyWUPLQlSr2PuoI+RfDFuzoVoL7CmYs+QT/6vjTwhT7sSQa/vMHGPeoh3j7gui2+2fJfPsv5pj5GKAA/7hIjv6WyNb+FxYW+msqQvxr6GUAaIcI9h7GEvjGeF7+MI0M/JjdAvxGYkL5K+7C+TaooP0SRib7s31q9gmaIv909nr5371m9BX/FPhonyr1hNLo9WDPrPXW6hr5iYHO/9aasvvhUBT94vjY+2xP3PmO6yT7rN4o/HTO9vj7qID+i1IY/vXQiv3bKJL7dWZa/v0DjvQzi7r6/3xU+kIeCvx/8Erz3OhQ/Pa6nPsHv3r6clKm/qQFZvi15KD+x458/ac11P4WD6T4la2u+n7i0PYL6jb56wq4+YeoYv1/9wb7YJ4m/C+N5vzE8Uj57VR0/T08Xv9gJVT8hgkq/JDlTv2Tyob2S/Jy/WgLNPnCdw77iZoM+CSbcPREgSz5AYjO/VXJsvitBqj6UtOg+ROpdP/nnSj9aXao+9zsHvkVDZT6SGy88LocHPn6k/b22iuu+PJWOPvFmJr+CsPc9dC8JPwzu3D6sbiy+yQLpPgC0Uz8aw0I/xMHxvtMZJ77ciNk+AfY+P6qIoL5KHcs+gWr8PmUomD9POqu9aMcGv/S5Nb9IzPc/ccoLvwlvZD7INw5AcYVYPgiG7z5Dg8Q/6z4oQHmK1j4r7z+939mtP4B89j7wJZQ+kxkuP99pg76ABqM/tMgFP6Cn+r5sF1M/ysv6PAB8WD5I+Wc/rw0VP+/KID+stZw+2Xh/P7BfkT7CA3U/49CCP4z6iD7iB8Q/xBpqv6tolL6XOis/TDlVvmVEBb+8NSK+TgjWvnf2Hj4ezpK9NGeovSjknr++u3++UqlnvxyKhL4du0+/Q6GfvrRsx743S6y+n2OmvTbuvj76cGS/qzggPiDBi7+JfeK++vOHvlJmDb5Cgii/WCa+vTCxNb7NRwM+7bXSPja8yL0e/kM+X7XCvu9+RT5+Jx4+VUYEPoI+ub+UfYc/forUvTP1j77hAx09ZuNwPyX+Uzxhnuk7xELuvRjEiz3jGQa+Gn9Ov+zW2T5sNqw+S1bpvaLdADuh0EE+KKvgvCifjz4iAQs/K1SkPuiVkL6kJqQ+J2D9vCxRIj4FYZu/6tFiPZZwG75JwBE+IQOSPiMH27yCf8u+0lAAQGQGrD567oI81a1ZP9E6+79PNPq+HcbqP6JzXj+aZAnA6p0nvjAIhj/h/fO+XzAvvxQA6r4etHO+3M1Iv7pOiT7+7K+/zXL3vgyW0z2NHxW/45Ozv4RDdb9Whcm+wZEXvxXcoT0Imai+5BGdvs/+kr8N3IW/1PVaPyk6M78hOTe/62NIv/kqnD34URS+HTYFv6lP8zzQRtK+wSeYPUmdhL7xGKY+ugVnPh8vk78NE1C/Up9tv0PuLz/HDAK/KTAFvqlzXL5v0S2+KtQTv2TKK74xnB2/qxvtPv1FF776TT++3QAkvqd+fL59hnM+g9vlPaIyMb5dSMK+DLjEP+gIJj+bzYA/3vj7vveA+D86hRE/cH8HQCvkDb79TyG8INitPlzeE798nkM+0EIxPx/x1j5+Ucs9Qw8ZviMSkj0PZaq+QEwKvmP3776mYcS+qqr3PXYepTx/CKK+4FSwvue5Xr9ZYAe/23EIP/pqGT4oJu8+2InlvhGrAD+vlVw+ZTByvJ/uxr5019e+6lgnvjt/xT9QOCO+duAEvir9gj4MOVo/wzFZP2Va5z+GYiU/Aj9CPrnTDj9aITM/ekFfv2okz70JcOK9lv2ZvSdbM7+7K/I+1D18Pl+XhT51xmQ+H+rJPU+r+D7mkdQ9WD8bP9keg79qVcm+h/HUPnHIJb9BIcc+REaQPu/6lD3EhMA/j7muPg1FZT4oTIU+gjmevnhc6D639QQ+HXoAPir8Ij/BCrs+supDv9xmFb3vYXE+Wl0Uv6pzEL9Ddjo/WZ4Bv+f4pTxqDdY9Hg4NPoBbYr1X8P4+tbyCvkWeKr/HPOI/6NrBvM2ym71/VgQ/8oQ2v3ASzD1RF+0+/vvjvowLD0CXDSC/kKGpP+BuXr5MoK8/ZTtVvAFN9D+sXpO+plgzv2s2Gj/1XIq9Dai8PkSzOT7JTk4/PnHlvhnKxj5b7cW+115QPopkNT8BQRa/N4Xbv+uokb6au6a/Aa4WPcWjD738eHe/JCgfP7Q9Tb8/g1U9gljUvNCsZL9hXzy+Mt9Nvyle3b6JyOc+AUBPvkl/zL5BajJAjrVNP9KZmr5ZA2w/Ju3GPo9zUsD9k/2+qKtKPyXorD3iYYy/+bwFvzgEDT2yb5A+ssWSv8zzLj6m29e9WhpePh1iNMCWyho+Hm+yveS+xr6vXXq+9IEPPY4NUD9wfx0+IsYFvzh8wr41/ZY/tXWGPtTyg78zzLi+G5/MPZqMyz1JHnC/A98bPUtiLr/z+Rg9sLOoPipGjr3SWOW+ywFkvhrtcT/LcWy9Kq9Evx3M9b2YDog9uSClPglMR7/rDOA9JV9wvsUHlD7iVQ+/VVWHvjni/T0GOyA+MlyDv9aOdL6FdsA+0JOWPqI2ij/+lTw+B4wsvkleAr+iks8+hKFPPgYOAT9YGcu+ZmTAPvsa3j7Xr6g/kl7qvmeePj9ghh6+Z/FOv/f87zxvZgy/2Rz3vd0NMr51yxC+heRYvtRvzL1rH9q+phrfvnFwjD5WC7i9ygUnv+a7lb55FQ8/ivVuPnew574NJ6U8wlELPlkMi76qXCU/ZfWjPEsjN74GlrA7qObvvRt7ZL4JP5k/qgUwQLGiBL6BExG/u93aPmUiDD+jkhI/+kp2P+yqoT4N+b28TCcvPjKssztcEla+CLyUPPYfgD++7py9dAmHvo+GaT87Tog/XD4FwMEeWb8UNx+/wtRDPYOrCr9DggK/eA/8Pv2FAUCHqFq/D25svu8zTr7SM6C+z8/bPXH2CL8coL2+Pw8/PjLovD3j7xm+LheBPTKGFD5EKTc+WrxvPzWJSr6Y34e+CuMMv9WyDT2wcga+svQ0v/pWVT5O7hK/OpyKPosOUT3so8Q8saXBPhT48b0La4o+IVI/v5ET3T5gRX0/2m+kvgzn3z5aqVy+gmkCvwMk7jwRQci+62cKv3+O+L3U9R4/+ExjPrPEIz9wUPu+LbFCP8v06z76yC+/3a/ivodpNr9DkuE7BwQrvuStE76cLgY8+NyMPvioJb8LNYu+vC2UPpKUsDu31C8/hxakPk9hbL4owJO7HWRIPLsD9L30LjE/bLczvk96pT9glmI+QMxXvpUm4DxWPKu+11vyPZvgsD4Vl2G/kPAGvzgMI0B3ZMI9re5Fvkxykb65WY6/Og+5vXdpDr9ELTE/Me0bv91Noz8xIQw+S1XlPQCsfj9ctLq+VUZKP1b8nz9cUCo/DrY4P2Vt7T7zcDHA";
