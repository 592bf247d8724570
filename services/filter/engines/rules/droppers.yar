// Files that do nothing but fetch and start something else. Each rule wants the file's own magic at its start, so a
// text that talks about them is not taken for one.
rule shortcut_that_starts_a_shell
{
    meta:
        symbol = "Dropper.Shortcut.Shell"
    strings:
        $powershell = "powershell" nocase ascii wide
        $mshta = "mshta" nocase ascii wide
        $hidden = "-w hidden" nocase ascii wide
        $encoded = "-enc" nocase ascii wide
        $fetch = "http" nocase ascii wide
    condition:
        uint32(0) == 0x0000004C and uint32(4) == 0x00021401
        and ($powershell or $mshta) and any of ($hidden, $encoded, $fetch)
}

rule rtf_with_equation_object
{
    meta:
        symbol = "Exploit.RTF.Equation"
    strings:
        $object = "\\objdata" nocase
        $update = "\\objupdate" nocase
        $equation = "4571756174696f6e2e33" nocase // "Equation.3" in hexadecimal
    condition:
        uint32(0) == 0x74725C7B and $object and $update and $equation
}
