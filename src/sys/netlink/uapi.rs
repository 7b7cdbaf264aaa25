//! Numbers of the kernel's netlink interfaces, named as its headers name them. Numbers only; each
//! block says its header under `include/uapi/linux/`.

// netlink.h
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSGERR_ATTR_MSG: u16 = 1;

// rtnetlink.h
pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;
pub(crate) const RTM_GETADDR: u16 = 22;
pub(crate) const RTM_NEWQDISC: u16 = 36;
pub(crate) const RTM_NEWTFILTER: u16 = 44;
pub(crate) const RTM_DELTFILTER: u16 = 45;
pub(crate) const RTM_GETTFILTER: u16 = 46;
pub(crate) const RTNLGRP_LINK: u32 = 1;
pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;

// if.h, if_arp.h
pub(crate) const IFF_UP: u32 = 0x1;
pub(crate) const IFF_LOOPBACK: u32 = 0x8;
pub(crate) const IFF_NOARP: u32 = 0x80;
pub(crate) const IFF_LOWER_UP: u32 = 0x1_0000;
pub(crate) const ARPHRD_ETHER: u16 = 1;

// if_link.h
pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
pub(crate) const IFLA_LINK: u16 = 5;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
pub(crate) const IFLA_STATS64: u16 = 23;
pub(crate) const IFLA_AF_SPEC: u16 = 26;
pub(crate) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(crate) const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(crate) const IFLA_LINK_NETNSID: u16 = 37;
pub(crate) const IFLA_XDP: u16 = 43;
pub(crate) const IFLA_PARENT_DEV_NAME: u16 = 56;
pub(crate) const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
pub(crate) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(crate) const IFLA_BR_VLAN_FILTERING: u16 = 7;
pub(crate) const IFLA_XDP_ATTACHED: u16 = 2;
pub(crate) const IFLA_XDP_PROG_ID: u16 = 4;
pub(crate) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
pub(crate) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

// veth.h
pub(crate) const VETH_INFO_PEER: u16 = 1;

// pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h, gen_stats.h
pub(crate) const TC_H_CLSACT: u32 = 0xFFFF_FFF1;
pub(crate) const TC_H_MIN_INGRESS: u32 = 0xFFFF_FFF2;
pub(crate) const TC_H_MIN_EGRESS: u32 = 0xFFFF_FFF3;
pub(crate) const TC_ACT_SHOT: u32 = 2;
pub(crate) const TC_ACT_STOLEN: u32 = 4;
pub(crate) const TCA_BPF_ACT: u16 = 1;
pub(crate) const TCA_BPF_OPS_LEN: u16 = 4;
pub(crate) const TCA_BPF_OPS: u16 = 5;
pub(crate) const TCA_BPF_FD: u16 = 6;
pub(crate) const TCA_BPF_NAME: u16 = 7;
pub(crate) const TCA_BPF_FLAGS: u16 = 8;
pub(crate) const TCA_BPF_ID: u16 = 11;
pub(crate) const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
pub(crate) const TCA_ACT_KIND: u16 = 1;
pub(crate) const TCA_ACT_OPTIONS: u16 = 2;
pub(crate) const TCA_ACT_STATS: u16 = 4;
pub(crate) const TCA_MIRRED_PARMS: u16 = 2;
pub(crate) const TCA_INGRESS_REDIR: u32 = 3;
pub(crate) const TCA_STATS_BASIC: u16 = 1;
pub(crate) const TCA_STATS_QUEUE: u16 = 3;
pub(crate) const TCA_STATS_PKT64: u16 = 8;

// genetlink.h
pub(crate) const GENL_ID_CTRL: u16 = 0x10;
pub(crate) const CTRL_CMD_GETFAMILY: u8 = 3;
pub(crate) const CTRL_ATTR_FAMILY_ID: u16 = 1;
pub(crate) const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// ethtool_netlink.h
pub(crate) const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
pub(crate) const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
pub(crate) const ETHTOOL_A_HEADER: u16 = 1;
pub(crate) const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
pub(crate) const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
pub(crate) const ETHTOOL_A_BITSET_BITS: u16 = 3;
pub(crate) const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
pub(crate) const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
pub(crate) const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
pub(crate) const ETHTOOL_A_BITSET_NOMASK: u16 = 1;
pub(crate) const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
pub(crate) const ETHTOOL_A_CHANNELS_TX_COUNT: u16 = 7;
pub(crate) const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;

// netdev.h
pub(crate) const NETDEV_CMD_DEV_GET: u8 = 1;
pub(crate) const NETDEV_A_DEV_IFINDEX: u16 = 1;
pub(crate) const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
pub(crate) const NETDEV_XDP_ACT_BASIC: u64 = 1;
pub(crate) const NETDEV_XDP_ACT_REDIRECT: u64 = 2;
pub(crate) const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 8;
pub(crate) const NETDEV_XDP_ACT_RX_SG: u64 = 32;
