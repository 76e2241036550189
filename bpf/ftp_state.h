/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the readers of FTP's text keep in the CPU's scratch: of what lies on the stack the
 * verifier follows every value through every round of a loop.
 */
#ifndef XLVS_FTP_STATE_H
#define XLVS_FTP_STATE_H

#include <stdbool.h>
#include <linux/types.h>

/* What the client said last about its next data connection: conn.ftp. */
enum ftp_mode { FTP_ACTIVE, FTP_PASSIVE, FTP_EXTENDED };

enum ftp_sentence {
	SAYS_PORT, /* PORT h,h,h,h,p,p        from the client */
	SAYS_EPRT, /* EPRT |1|h.h.h.h|port| */
	SAYS_227,  /* 227 ... (h,h,h,h,p,p)   from the server */
	SAYS_229,  /* 229 ... (|||port|) */
};

enum ftp_place {
	BEFORE,	   /* no '(' or blank yet */
	OPENED,	   /* behind it: more of them are skipped */
	NUMBERS,   /* of the old form */
	DELIMITER, /* from here on the extended form */
	FAMILY,
	NOTHING, /* the address is left out, too */
	FAMILY_END,
	ADDRESS,
	PORT,
};

/* 128 bits, and how many 16-bit words of an IPv6 address were put in. */
struct ftp_words {
	__u64 high;
	__u64 low;
	__u32 count;
};

struct ftp_reader {
	__u32 first; /* where in the text to begin */
	__u32 start; /* what is to be replaced: from here ... */
	__u32 end;   /* ... up to here */
	__u32 number;
	__u32 decimal; /* the same digits, read so; 256: they are not */
	__u32 numbers; /* complete ones */
	__u32 port;
	__u64 digits; /* bytes of the old form, or IPv4's of the extended one */
	struct ftp_words head;
	struct ftp_words tail; /* behind '::' */
	__u8 sentence;
	__u8 family;
	__u8 place;
	__u8 delimiter;
	bool dotted;	/* the rest of an IPv6 address */
	bool begun;	/* the number has a digit */
	__u8 colons;	/* that came last */
	bool gap;	/* '::' has been */
	bool addressed; /* an address was named */
	bool understood;
};

struct ftp_search {
	__u32 length;
	__u8 family;
	__u8 mode;
	bool found;
	bool over; /* EPSV for another family: nothing else is looked at */
};

struct ftp_state {
	struct ftp_reader reader;
	struct ftp_search search;
	__u32 read; /* the packet that goes on to the special program was read */
};

#endif
