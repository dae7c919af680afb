"""A real CT file with identifiers planted wherever a file can hold any, each a word of its own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.dicoms import shipped

FAMILY, GIVEN, MIDDLE = "Quibblethwaite", "Zebediah", "Orlandovich"
NAME, PATIENT_ID, BIRTH = f"{FAMILY}^{GIVEN}^{MIDDLE}", "QX-4711-ZZ9", "19620317"
UID_ROOT = "1.2.826.0.1.4711009.19620317"  # a UID that embeds an ID and the birth date

# Public elements at the top level: (keyword, value). Every value is looked for afterwards.
TOP = {
    "PatientName": NAME,
    "PatientID": PATIENT_ID,
    "PatientBirthDate": BIRTH,
    "PatientBirthTime": "031759",
    "OtherPatientIDs": "OTHER-88812",
    "OtherPatientNames": "Snodgrassel^Wilhelmine",
    "PatientMotherBirthName": "Fitzbottomley^Agathe",
    "PatientAddress": "17 Larkspurway, Netherwallop",
    "PatientTelephoneNumbers": "+44 1632 960017",
    "PatientComments": "lives beside Grumblecastle",
    "AdditionalPatientHistory": "cousin of Lord Pettigrove",
    "MedicalRecordLocator": "MRL-556677",
    "IssuerOfPatientID": "Wobblesea Trust",
    "MilitaryRank": "Rearadmiralissimo",
    "Occupation": "Harpsichordtuner",
    "EthnicGroup": "Lilliputian",
    "AccessionNumber": "ACC9081726",
    "StudyID": "STD5544332",
    "InstitutionName": "Mudfordshire Infirmary",
    "InstitutionAddress": "1 Cuttlebone Lane",
    "InstitutionalDepartmentName": "Ward Marmalade",
    "ReferringPhysicianName": "Crumpetworth^Ebenezer^^Dr",
    "PerformingPhysicianName": "Tiddlemarsh^Hortense",
    "OperatorsName": "Bumblewick^Archibald",
    "StationName": "SCANNERNELLIE",
    "DeviceSerialNumber": "SN-331199-K",
    "StudyDescription": "chest of Mr Quibblethwaite",
    "SeriesDescription": "as Tiddlemarsh likes it",
    "ProtocolName": "Protocolofolly",
    "ImageComments": "patient shouted Yabberdoodle",
    "DerivationDescription": "derived by Oddfellowski",
    "RequestedProcedureDescription": "Frobnicatogram",
    "PixelSpacingCalibrationDescription": "Calibratorix",  # not in the standard's table
    "ContrastBolusRoute": "Routissima",
    "AdmissionID": "ADM-770077",
    "PerformedProcedureStepDescription": "Stepdescriptious",
    "RequestingPhysician": "Vanderplonk^Isolde",
    "ScheduledPerformingPhysicianName": "Okonkwolo^Ngozi",
    # Kept where they are harmless; these are not.
    "SoftwareVersions": f"v1 for {GIVEN}",
    "Manufacturer": "zebediahquibblethwaite inc",
    "BodyPartExamined": "ZEBEDIAH",
    "ConvolutionKernel": "QX4711ZZ9",
    "StudyInstanceUID": f"{UID_ROOT}.1",
    "SeriesInstanceUID": f"{UID_ROOT}.2",
    "FrameOfReferenceUID": f"{UID_ROOT}.3",
    "StudyDate": "20040119",
}
# Words to look for that stand in other places; `plant` puts them there.
ELSEWHERE = [
    *("Privatella", "Creatorius", "Siemensoid", "Nestedprivate", "Deepthroatius", "Deepcodeword"),
    *("Overlayname", "Overlaywhisper", "Curvename", "Audiovox", "Unknownpublic", "Wrongvrword"),
    *("Signaturion", "Paddington", "Encapsulina", "Reporttext", "Annotatia", "Modifiedia"),
    *("AETITLEONE", "AETITLETWO", "AETITLEFOUR", "Metaprivata", "IMPLNAME", "Preamblius"),
    *("Iccprofila", "Trailingbytes", "Localcodeword", "Requestella", "Encryptia", "Numberword"),
    *("Filenamely", "Zipmembera", "Foldernova"),
]


def secrets() -> list[str]:
    """Every planted word and number."""
    found = set(ELSEWHERE) | {"4711009", UID_ROOT, "331199", "556677", "960017"}
    for value in TOP.values():
        found |= set(value.replace("^", " ").replace(",", " ").split())
    harmless = {"1", "17", "v1", "of", "for", "as", "it", "Mr", "Dr", "by", "inc", "chest", "likes"}
    harmless |= {
        "patient",
        "derived",
        "lives",
        "beside",
        "shouted",
        "cousin",
        "Lord",
        "+44",
        "1632",
    }
    return sorted(found - harmless - {"Lane", "Trust", "Ward", "Infirmary"})


def plant(path: Path) -> Path:
    """Writes the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # much of this breaks rules of the standard, on purpose
        ds = pydicom.dcmread(shipped("CT_small.dcm"))
        for keyword, value in TOP.items():
            setattr(ds, keyword, value)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}.4"
        _plant_private(ds)
        _plant_nested(ds)
        _plant_odd(ds)
        meta = ds.file_meta
        meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle = ELSEWHERE[18:20]
        meta.ReceivingApplicationEntityTitle = "AETITLEFOUR"
        meta.PrivateInformationCreatorUID = f"{UID_ROOT}.5"
        meta.PrivateInformation = b"Metaprivata " + NAME.encode("utf-16-le")
        meta.ImplementationVersionName = "IMPLNAME"
        ds.preamble = (b"MZ\x90\0 Preamblius " + NAME.encode()).ljust(128, b"\0")
        ds.PixelData += b"Trailingbytes " + NAME.encode() + b" "
        ds.save_as(path)
    return path


def item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _plant_private(ds: Dataset) -> None:
    for group, creator, text in (
        (0x0009, "Creatorius", "Privatella"),
        (0x0029, "SIEMENS CSA Siemensoid", f"{NAME} Siemensoid"),
        (0x7FE1, "GEMS_X", PATIENT_ID),
    ):
        block = ds.private_block(group, creator, create=True)
        block.add_new(0x01, "LO", text)
        block.add_new(0x02, "OB", NAME.encode("utf-16-le") + text.encode())
        block.add_new(0x03, "SQ", [item(PatientName=NAME)])


def _plant_nested(ds: Dataset) -> None:
    deepest = item(PatientName="Deepthroatius", CodeMeaning="Deepcodeword", PatientID=PATIENT_ID)
    deepest.CodeValue, deepest.CodingSchemeDesignator = "T-1", "SRT"
    deepest.OperatorsName = "Deepthroatius"
    deepest.CodeMeaning = f"lung of {FAMILY}"
    block = deepest.private_block(0x0011, "Nestedprivate", create=True)
    block.add_new(0x01, "UT", f"Nestedprivate {NAME}")
    middle = item(
        AnatomicRegionModifierSequence=Sequence([deepest]), InstitutionName="Deepcodeword"
    )
    local = item(CodeValue="Localcodeword", CodingSchemeDesignator="99HOSP", CodeMeaning=NAME)
    ds.AnatomicRegionSequence = Sequence([middle])
    ds.DerivationCodeSequence = Sequence([local])
    ds.SourceImageSequence = Sequence(
        [
            item(
                ReferencedSOPClassUID=ds.SOPClassUID,
                ReferencedSOPInstanceUID=f"{UID_ROOT}.6",
                PatientName=NAME,
            )
        ]
    )
    ds.RequestAttributesSequence = Sequence([item(RequestedProcedureID="Requestella")])
    text = item(TextValue=f"Reporttext {NAME}", PersonName=NAME, ValueType="TEXT")
    ds.ContentSequence = Sequence([item(ContentSequence=Sequence([text]))])
    graphic = item(TextObjectSequence=Sequence([item(UnformattedTextValue="Annotatia")]))
    ds.GraphicAnnotationSequence = Sequence([graphic])
    before = item(PatientName=NAME, InstitutionName="Modifiedia")
    ds.OriginalAttributesSequence = Sequence([item(ModifiedAttributesSequence=Sequence([before]))])
    ds.EncryptedAttributesSequence = Sequence([item(EncryptedContent=b"Encryptia ")])
    ds.IconImageSequence = Sequence([item(ImageComments=NAME)])


def _plant_odd(ds: Dataset) -> None:
    ds.add_new(0x60001500, "LO", "Overlayname")
    ds.add_new(0x60000022, "LO", "Overlayname")
    ds.add_new(0x60004000, "LT", "Overlaywhisper")
    ds.add_new(0x60003000, "OB", b"Overlayname ")
    ds.add_new(0x50000022, "LO", "Curvename")
    ds.add_new(0x50003000, "OB", b"Curvename" + NAME.encode() + b"!")
    ds.add_new(0x50022000, "US", 1)
    ds.add_new(0x5002200C, "OB", b"Audiovox")
    ds.add_new(0x00089FFC, "CS", "UNKNOWNPUBLIC")
    ds.add_new(0x00089FFE, "UN", b"Unknownpublic ")
    ds.add_new(0x00180087, "LT", f"Wrongvrword {NAME}")  # MagneticFieldStrength is a DS
    ds.add_new(0x00280107, "OB", b"Numberword" + NAME.encode())
    ds.add_new(0x00282000, "OB", b"Iccprofila" + NAME.encode())
    ds.add_new(0x00420011, "OB", b"Encapsulina ")
    ds.add_new(0xFFFAFFFA, "SQ", [item(Manufacturer="Signaturion")])
    ds.add_new(0xFFFCFFFC, "OB", b"Paddington" + NAME.encode("utf-16-be"))
