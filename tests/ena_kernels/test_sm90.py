"""What the tests of machine code find in it."""

from tests.ena_kernels import sm90

SPILLED = """
        /*0010*/                   STL [R1+0x8], R4 ;
        /*0020*/                   LDL.LU.S16 R31, [R1+0xe4] ;
        /*0030*/                   STL [R1+0xe4], R155 ;
        /*0040*/              @!P0 LDL.LU.S16 R35, [R1+0xe6] ;
        /*0050*/                   LDL.64 R2, [R1+0x8] ;
        /*0060*/                   STL.64 [R1], R6 ;
        /*0070*/                   LDL.128 R8, [R1] ;
        /*0080*/                   LDL R7, [R1+0x40] ;
"""


def test_loads_before_any_store_to_their_place_are_found():
    early = sm90._early_reads(SPILLED)
    assert [text.split()[0] for text in early] == ["LDL.LU.S16", "LDL.64", "LDL.128"]
    assert "[R1+0xe4]" in early[0]
