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
      "lstm": 0.5442,
    },
    "training: congestion": {
      "logistic": 0.6396,
      "lstm": 0.6689,
    },
    "training: both": {
      "logistic": 0.5963,
      "lstm": 0.6103,
    },
    "training: random": {
      "logistic": 0.1719,
      "lstm": 0.2011,
    },
    "short bursts": {
      "logistic": 0.2576,
      "lstm": 0.2752,
    },
    "long bursts": {
      "logistic": 0.0723,
      "lstm": 0.0754,
    },
    "lossy spells": {
      "logistic": 0.8063,
      "lstm": 0.8169,
    },
    "congestion": {
      "logistic": 0.7583,
      "lstm": 0.7557,
    },
    "fading": {
      "logistic": 0.1584,
      "lstm": 0.171,
    },
    "handover": {
      "logistic": 0.156,
      "lstm": 0.2077,
    },
    "mixed": {
      "logistic": 0.468,
      "lstm": 0.4586,
    },
  },
  "check": {
    "logistic": {
      "prArea": 0.5305,
      "fingerprint": 0.43706816421006367,
    },
    "lstm": {
      "prArea": 0.5421,
      "fingerprint": 0.28041607389375234,
    },
  },
};
export const LOGISTIC_WEIGHTS =
  "pissPiAkr76JI8A/jCWTP4vflj/Jgty+VDDXP8RPQD7+v1dAUJ0PwFEPcb+aeGe+Mutdv4DQyj/BjA4/8lWJvYkjjkB1+qK/OFkPv6skUL7bCrw9MDZmv2Jzrb7isqe9MHaTwA==";
export const LSTM_WEIGHTS =
  "BHvtvnj2Lb4riaW++emmv8TvFr+1ahy+DYM3PwN9Cr/wcby+05RgvQTTg77EpCg+gGGXv5r5mD9ENgm/vMqlPbZxYr+YjYM+fm81v6CphD74OEy+Ooq/vhLaVT4bl6e+hgcDv0EU6z6WqC6/rpNDvgb2Sz+gyPe+744Tv9oRjL4bxAc/ImFyPWiICb+15FW7JhY/P5g8/judMAq9+vzcvYj0bb4wYA8/neC4PgFkPzssTeA/1rYbPy7jWr+IfVU/cKYivs0ZXb8ckZk/ZF+xvpUYLz9mVk4+zTxyP7Wevz6jMm+/WIgePuzpJT+ygxi+B3eCPjdwj7+n34g+HM7ovp6I4r5oUhm/MBi2vh9BtzwC+yY/JSbXvp4M2T4/Zd0+1zjuvgU2kD6yHZo9cP58vkcqOb/CYnY+NX87vpBNJj4+O2a+aU5Mvg3PyL5I3D0+zbOpv1AghT0AP9Q+OAC4vkhYEb/QMdc9m7BYPvwhd74Dr0i+JDnZPg4tIT70M88+sy74vu8+BEDDOkm+o5SbPu9h1z/yii0/uvUYQDFbr785EkE/ys/8PaIZUz+sWVG/akrfvBeRzT5V3WE/ZLsZvlOKEUCeoAk+SHLhP5qfLr9VdzA/Cxt6vRKYUD+mxsS+xaqJP8aZ5j6HYmE/3aqVvN8aVb/wJ4U/n+xdP4Z/nb2T+iq/jNSqPz/eVj/B1Fa+iBIbv2R3Fj4NGyW/PayrPmGbhT9PYZa+Un2GvlmVg76TT5E/u8KGv+iiEr7xyeM9ud6fvsROZj8Thiy/VIFcO8krA0AHdXm/bso2vwHiaD68EKC/y3Z3vnK7Wb/paQQ/Tp+2vgWyLr8jwi2+i9C5Pt1Oaz9QGv2+TMZqv1BY4r78g5c/cVqyvsOV874NVgm+cgpyP52pbL7jAA6/1WTbPAluOr7ZoBk/C42PPobCIT5uPZC/rgABP5uZ8T1HinQ8FWmWPujVKj+qmAy/xZDxPmf89z6uYoA/9RDJPv8Gmr6ZUtC68fuAvqEkrL6el9s+bKHrPXP1Qz5Ph/c93sRcv0Sbtr+xtyNAwegRPlneoj6dafm/GaJTwCnlpb+S4m4/99qEv/klQcDhYqu9ReSlPnOcfj7u/Ba+j+giPuOBgzzVH12/LQPLv9kHoL/1wRq/VM6dPkcCQT7RMH++irWTv6ZBDr5SWZO+ZIRPvYU9k78reim/pbMmv6QEYL+y+Oq+/RObvyJCFD7iCQi+X42HPSQ9Zb+M3SE+l0BkvYGT77zdsRg+3ndbviX9wz6gdws/kmYFvqLgK7+fgKG+eyc2P8Si9742fY0+MaGCPq/BVb51Kg6+TWhfvwtyp70fak4/2hxuv2Ullj4jjPA91n7dvZQLM7/H4wq/S87Yvh/Fkj6OkEE/gORhPdQfgj/MDZc+R8AVP8lOHj5PrPW+J06Zvr130j6f0eS+hJgYvi879j71yWw+3MBuP4arD74h90w+9PECvynLUT5LfHe+CNjhvpULZr+HCR2/k5UHP5K2ebuFIpu/gnpLPT1uFL5t/Ug+EqPZPuVPir5cGxu+YyE1PfxzKb4S7RO+B1rhvlQq9r2jgBO/Qiw2QLzBLz54swM9Bbl7P0k+SL/ScXW+3acvwPDApT7veO2/J7Mgv7EccL5nmlE/+ELxveQ5hr/DIae+H1qGv2fl8D1TfLu/hgsnv+GwxT/MdXy/dD+jv1dDsby8iylAsxUQwCepm79Kp6Q/6JhNP1sT8757SzQ+dJTRvYt7Vj/ouhi/9wKmPkd/kz09mMo/3X9rvxs7R758rEg/cc0Xv/o3cT5RFTW+m7ynO6DNI74wOlI/rRCVvh8bNj73nV49EX1vPhRLmb5R4UU+lsEUv9jqFb7PBwA/tWJZPayoTj/ZlN++bZ1+P8JfFz/7F5I/aGp6u8of1D4qVwW+vKTFP8tRQ7463Gs/js4lv1JweD+//oa/OAhNPTYO373jcCU/WhotP4dE6j5Mqgw+IH7fv0jEEz+30cu/nsQ0PTxz6z65RWC8sQK7PoSYRz4+3xI/pnG3vhu6gz408fm91Gs+P4YCDL9t/ju/SlKWPLukpb5BQoc/GHcWvkmAQT5zoF0/BfHaPM5TBz95Ev8+0cJhP5cWHEBOZcg+s2ZEPrjeBL7F+26+V6BJvzuVeD6+NTm9KQ7rPEXpITsYVE+98/iIPflAPr5urQu/YY+EvmvfGr+moG6+7iqDwMY7lz+5jbu+0FIqPl0dFb95s8e+hUiXvh3WtL3ck8s9Qh+OPVtFGz+TY6K9g+VFvkxvPb//cQO+qDulvTw3qb/xi7a+ZxqQPjRRVL7sxT8989g5PgdX1r62R5u9TC+4PlyGCL2/XlW9gZ5CPggBDz5hkEc7CJvtvRnDu76xvFQ+bcCxvgTRob4bqWA+HlbEPtmwqj42fqa9dnoIPSYv8z2stfu8xuMuvvoOvr6cQTK/9I81PvaDEb9h+ju/8M6Dv36Y6D5puMc+rxeSPUxvX76z7MM9+uT+vrxfXb5/UpS+EujVvByR4z7J9R8+ScdOPmEVHb48wZY+lZvIPkKeA74onP++TYu4PoCetL085qg8pqclv8YLxD7Fq4O+taR8v0FOUz4MGOy9P5XMPiAZGD+d2d69UA48Pjde9z6vTBG/e+DxvplCCr2cwTxAUh+mvjyLQL7MVZC+2jLvv7rsmr9f9jzAaHymvSdFqr/OIX6/BK3KvoQBOb8QCzy/iVflvoQYRr5Xq2+/aIVMv5utN77k2sU+6aEGv6t5sr/xT+e/3cQqPomQHzz/S02/IYz4vh2R0j/0aKc+HgmEvzhZmb9OK5e+nsKQPlvhYb6MW1q9rckjPks2+j5A2HY+HI2ZPYRqqT5CHPI9l4rPPkW/Sj9RIIE9d1UNv9KAmT4/G6K+v51WvjGIsz84HBI/8oD0vmn2uj6VKGy+cBJZPlsb4T63Hvm9bdomP/GWUj76itA+Ids9PotFhb7g8iO/3OF4P83YfT4AY52+incnvyfduz9DiBA+Qx3JPjJXGL8diKk+JUERvvVmKD5vX6o+v90NPj8shL0xdfG+Roc6P1NA475JM5e8kjoyvsCFK7+9uqC+s2AKvjr6mD0056g9NnFkv9fePj9wVL6+Dao/vx+m1L7wZ4u+ZKlmv851FD0veCG++m1MvmKC5b3rfs++gYhUvy+C0D4Rh9s+MLsWQM9oCj5NYwk/ZXVpPOG78j+64co+8nzuP242OL/+afW+64pJvjBtMb6aoLI+tWezPUnLuz40ous/T0fRPkfMhT25CrVAeMIVQONXCkD+JpM+k1QSP1/yCUArqoc/YlWCwPk8Z8ATbypAQJk/vlT70r4l15w+U2UDPtr50D75UWS/rGAyPzDBeb4K1rw+WN1Uv2Z7672aUKO/PtutvxRmxL1A5iS+YAYwvn/TuT5x3oI/2ncMwIkrBD4akT89GEm4v7iGTD9JnYu/hoilPp4laD/WGcG/006nvXmXiL9JuJK/Vt/nP4N9db/pRDm/9FzDvoqmfL6vA0m/LkDmP7Ac/D4fY6E9vpGtvc/+GUDZUDU9qVFWPTe9lT5zAKO+hDQDvtQW975qX+e+cUM+v20hij9ywd6+iO4+v3aHMT2r0Za+jfZBvUEXJr81A6i/8hMgv4eb8z4t+6M+fqyRPe43yT6uOUM9W2s8PqezgL/IrJI/WUq6v4Eokr6mFghAcWZ5PpBnNT9hZV2+nbKFPvaIET/YLC0/4ecKvwakOL+c7bm+Ku7YvQgErL/lJYa/2czFvR6n7L5Xfbu+vPK5vimfjj9BUsQ+eNEsP7cn2b+a29O+PJOLv7cqBD6F+0G/kstsPwfiNjwxbII+XHf9vjhNNT9ggJy/3Ks/PxFSAsAupSU7WZUQvyxjf7+VWI6/dH+EP19aEj6IcM6+qePIvjSwqz8gAiA/xTK2Oyb2mz+Rosm+71icPa3+GT3bctc/amJFv7pqAr9/BlO/WL/5vpz/7T82BCs/IzsEP3maVT+WKeG+kmzAvId0N7818ay/Mn54P4hyAj+lvo2+FNvRvnXNEL/KIUO/PCpnPedgcL4hvFk/HCGXP+QmB73e/Yu/46cQP7Xnhz43b+o+PcNaP6Ni575JnnQ9RYe6Ph5nXD/OwgK+GM43P0whD78WDba/sWqHPhXntb6qIJm+pCiTvtGlSr/ZOey+tqsEvhMoMj//zi4+YxJBv1dN7D4SSYk/Rwmzv49pj7+tM6u+ICNSvnmuwD0GiFQ/EVoLPxslkb/11ExA5jkHPkyH/b77itG+Hc97P3ORqj9TmpY/VWjtvNypmT98vPQ+hKg/P5zivL88cdQ9LvyKPl42wT2X3+W+Uz4mvcGq2z9IHCk+j2I9Pn/4qD45+ws/ifeTPhWdBj8Yd42+2haYvuxb7b5ezBO+pm9hP40YnT/39AG/imLOPce3zLrYsWy+/gQTP8CRwT7qWw8/A1QPPpSLnz7n2U0/1dnnvVdtvj7dsus+NBx5PX6ygj8b848+sYznvv2fgT6b4FO/xc0GvifE/71+0Zw+SysbP72aLz6lCP49G7ajPrhhOr8WnwA+XzUqP6FLgr9B6yo/KILpPgyBjb6U8CO/avtEv1+qr72T4b4+w/2evhHYQT5sN3E+Q5T2vtK2pz5etQM+q6vbvVYNFb7Yrw6/3ImSvl0SK78wFXS+YieBv/nnFL7V8m+94acTv2tcTT8qxBE/cDqhP0x5IL+5Px2+wed7P1K/Kz8hBBe+JcOtvs3hTD+WO5q9XMvQvvFiW77eUrM+jBo0vTf3vj4QsVe/hIL4P/9eYL3NJ5W9iU5SPz6bET+kJIM/+YcLP5Gd8j5JMzQ/OrVNP0JvMb6phy2/pwQEPy1Imb5cYwS+94Urv39Y+L628Pa9eIOYP11NBr+xDLE9J0sGv8cVzj5bTJy+3wpNvuFmUb+m+Zk++bkgv0rBwT5KLp6+H5I4vncHTr/Rjic/2UCdv22xML6T4hC/oqJUP08NZL+oaSi/D/nEPtBXQb+Jr20+j9+nPW8FIT9ekQW/0OmcPkSK2j6f7nC/+qmDvi1eb7/w9zG96IcKP2SGMb0fgRE/eLX7Pi0D2L5Qk0U91vcRv385ir7iAP6+g3aPPfIK7b2DWXe+dJGGPtiDDT7ke1c+Vwo3PooFwD3e9Mo+WhwNvVnZgz0g6Su/cNzBvkrc2z3ihiU+ArUxvjtAE7+8mW0+eVrUPvTPhL9k5Fc+VeOQPTmEdr7IhcC+2XXWvs83M74b7DU/F/idPfBYgz5QuAW/n3zAvXZfNj4rc1e+iFPXPtvEuT5zq1q+j3bhPlwTJ7/9jGC+ufs9v/H0JkALdU6+YFj9vQ7EPr8+BIU/jOzhPoZoir8Pnie/CByFP3hKTz+1kAW/XlURvnvXrD56sKy+791EP4oDoj+m3Xe+ueMdu9sNXD8tVh6/Ew7PPMwl2L6+Eo++X2GTPzij6T6vaTQ/0PyYPgzMDL9SBw0/Pg8tPhDDMD7HAFS/E/3uvUFCJr+dhw6+7bt/vdGD9z5p+Yw8cHPgPKClAD+d7wS/0U40vkjWJr6F6+m9h3KHPuU3BT/vYkw/TH0mP1lESL8zsD6/TlLMvewksT7fkZS+T24rPy5uC72Og548OhExvwl1b7//+/e+mMF0v+LL1T4k52i9PU8vvrbqjT9d0gU/6wlwP4ljD7+uE3Q+6BypPqpNyz7byTg+V6ykPz9NFD/VFoQ+YvFqOyMj1z2SKTq8u6wcvyvWy77Rvg+/nxPAPewtHL9IoA8+f3WDv6CNuT6r2La+Gyk2PtBgc78x0kw/vTsOP7M5U77vMJM+8huMP4xEpT6daos/w8W9vsxDij9mbL4+wbl3Plm4Lr9KeQZAS5aqvlbTLD7Es+k/xSqIv5lILb/x794/DP8YQJn91r7Rozi/YBvKP+AQMT5EIMY+DbxLPgARNr7RPJQ/SwIrPOYOD0A4zgI+7+hfP1g2Pz4Tz0s/Ieh7P63PoD+Mz9c9mn/jv443Mz+hUIA//7IoP8dgMb5YLNQ/Bb3Jvj3sQb9y2hC+bnenvlRHS74u4JC+H3Mqv02+Pb6JgYO/H/OhvlmfVb4pHba+RLY+v9LH4D4y1DC/kV3SvdsHVr1HN2S/TMxvvhUS/bxzSLq7jI74PuNPCL80Gcw9wbQaP5opUr80UDs+/zsIPg7a1L6unSw/SdC1vXaaMj4lcNc+TguavtV/Xj2z0yW+C3oOP8m7Pr+Aq9k+uSGxPjLM1T26rBg+62W0PjHUiD4XNni/RioFPbImvr50Wda+TFiCvpCqSD6juqW+L/mIvqCSgD/Aake9n26MP1ajaD9bISQ/JVk4P8EdML+8w40+X1+jviQxGz+Weki+rhYmP3nsW70KQ5i+GSboPkc0xL4ZeRI+OUHKP+Qhoj2Eirk8QMyUvngJHL5mUsE+Yb+xP1tZuL77qGC+ZBQGPsLHcD+F1t6+HdBiPpRpOT5K4hu93YNWv+wngT8MCrY+MeYsP20d7D0Wrkk/ZrRQvgKBCL77zAE/qofJPlMhDL/ZNnC9UcV8vwCItj50H/a9Z9ygPgM/Db8IKAw/1ythv1u7Az+Dp7o9HMaBP/OxMLyHAjc9nra+P8xWo72aOhe/9byePon9lT/1vVC/5lxKvoU+hj5Wa46+Zx+iPzY0PD+FH84+dkU1PoM8Vr++wQY/ikWSPjG7qr907Vw/pGeFP6Oanj5Vv749FlnJPoE/Bj/WcT+/SBCWvv9xwD7x5yY/Dhlbvg3QO79IF8a+ELW5vpy47D6ro5g/ocgjv9XBrz70Hn09iDv7PQbmLD9/KSY+T1u9PdzhFL/pL9g+B86EPojvJr/X5Me+SE/BvyVeyL7FbE2+qwHqv5WnP7/Q+Yo+Sw71PjU+1D/ASvK+Vl2ov/OchT5zkE2/CwLuvjI71z646Ew+FU1wv1C0KEBBOoY9AizaPFBqED9JMWk/7eAxPyEQ9T+D3Wg/ACUZv27C9TxMNKQ+IBiAv7zkObxz508+WLHXPJGJjL+iE9A+epf7v7bX9T4L6r69pK4hPgXlhD/BZvg9PpraP1NL5r8rrUm/U4LRPrrdzb5cYkk9bDsyvdvNYz7Q3FE/SkMvP98EIz/CYEk9gjGXvtUjkD6v1Pm9WjlCvYMLkz5be2M+IOUMvxlfnD765cG+aKyPPjHGbL95fbA+Tm1CPz1jUL4eP2G+efqePpa3bbxbTQS+2S3pvu6vLb41eaA/iDuzvrQfDT9Fwlm+6y4jv9e/or2KvuM+4mBHv014nD3QPuU+mdi3P2NnIL+dfrk9BlQ8vmrgeD+U/2u+b1ljPwHP2j7caqy+iP9+Pse1mr9qOdo+RBqsvziRWz4CzRa+eeWWviymzD47hS+/Hh+sP3/7h72ifG2/yXoKPbCrEL8r0TO/U5pXPVdRbr+giZu+g8gWP0DFu7/dJLK+0ygBPxL2A76py1g/RkIfPhZy5b1WlRxALM8xP2gxlL7zKQu+9Yt4PO4IQr9hxJQ/3+TsvlXYOb6YRjE/tuIkPpj2x70Ojgk+XEYGv2yQ/z7kJhs+96vmP6wEg79bdoQ/ATvKPNHFVb8iWHy/CR85Pm6yFT9z4zS/nnHlv+t9kD606U6/bX9BPhAfN7+MKW0+cf01vtgOWj6wPiM9hYYiP1mvWL+TgX8/Q1o7vI5Njb1VhhY+KazsvUhdS755HLk+nuQRv4PqO78X9rq9+HoWP6E1/D4rA6I/ESFdPqkT1DzyyHy+8dqbv03NDj9n8JE+/vu0v5LakT/blU0/fh8OvuDIlb4fEoi+aDEePvKaWr7KAdU/KFyZPpF0gz81Wvk8aKBPPzhoF79Ruse+c7ocvy8X3z/Uvw2/TpdyvkTKAr5tKVu/aF4sPuwmET8qCYA+1zeBvz0JkTv5h9898zYWv0miLb/JggG/TYhBvwX2+7wYZZO/pOwfvwYPgL5G6kc/Q2QfP0Zgib/eQWI+Y0T7PRZ+GL7ijxU9WYHwPp+hN77lhGu/PilAQFTKDD6Bx6C9MxjCP8NWej/OzoI/wjHVP18P1j+dVTA/EmNGP3PzXD/qQNe+1kd5u6ZVVj+yjuO8Zs+7PPwunT8Or3s/3l4NPmtB7D4sxxQ+wuXfPtBDGD4v+RG/z3B9Pyltmj8Nb7a9K2pOv8Cugz/K1JY//GU6vsznPD8dY4Q/6x+fP4oTNz8jjxW/yBE6P3+rzD5BZj8+X/+uP8B3F789u/u+bX4pPqP26T+4fYS/ik5wv8f7Tz/1jgy/2/9AP7IJdzw+Ejo+3bkkQAO6eL8NhI2/d+ipPpkIGcAsL8U/qFM6PlT7QL3KUpW9kEzMPhmh0T6LO/O+BME7Poyxaj/Yj9u+rxcgP8xa2z4OyWu/lDblvk2fY74FrSJAlJdXv/hzYL/upAY8aTYxv1RLMj7NBx29Ql3xPWfCtb8MN7E+BYdHPyzV6r6qK4M/PljIPZR1qD6KM2M+LOslvzhKhb6K6VQ/vMi3vacjKj/s+gy/KsDLvjXauL1OGnK/yPhqvrTD2T6d3jO/XOD6v4gIcECdjYM/k3WkveT43b5xwzq/pzXaPJNgeb8yAWO9VH21v1kSoz/s+Cy/jjMFP0zMiry9A9q9PTcpPxvhDD+DVy4/IRJ6P8OTbz+MRi7A";
